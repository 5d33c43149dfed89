package estimate

import (
	"bytes"
	"testing"

	"weigh/estimate/hw"
	"weigh/fixtures"
	"weigh/formats/gguf"
	"weigh/inspect/model"
	"weigh/inspect/projector"
)

// openProjector returns the projector of a name.
func openProjector(t *testing.T, name string) *projector.Projector {
	t.Helper()
	b := fixtures.Projector(name).Build()
	f, err := gguf.Read(bytes.NewReader(b.Data), b.Size())
	if err != nil {
		t.Fatal(err)
	}
	var tensors []model.Tensor
	for _, x := range f.Tensors {
		tensors = append(tensors, model.Tensor{Name: x.Name, Type: x.Type, Shape: x.Shape, Bytes: x.Bytes})
	}
	p, err := projector.Read(f, tensors, 0)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return p
}

func TestProjectorsTakeWhatClipMeasures(t *testing.T) {
	for _, want := range clipMeasured {
		p := openProjector(t, want.name)
		for _, run := range []struct {
			devices []hw.Device
			want    [2]uint64
		}{{[]hw.Device{ada()}, [2]uint64{want.gpu, want.host}}, {nil, [2]uint64{want.cpu}}} {
			o := Options{Devices: run.devices, MMProj: &Companion{Projector: p}}
			got, err := o.projection()
			if err != nil {
				t.Errorf("%s: %v", want.name, err)
				continue
			}
			var n [2]uint64
			for _, u := range got.towers {
				n[0] += u.bytes
				for i, b := range u.warm {
					n[i] += b
				}
			}
			if n != run.want {
				t.Errorf("%s on %d GPUs: %d bytes, clip measures %d (%+d, %+d)", want.name, len(run.devices), n, run.want,
					int64(n[0]-run.want[0]), int64(n[1]-run.want[1]))
			}
		}
	}
}

// ada is a GPU of the compute capability that clip was measured with.
func ada() hw.Device {
	total := uint64(24 << 30)
	return hw.Device{Backend: hw.CUDA, MemoryTotal: &total, MemoryFree: &total, ComputeCapability: hw.Capability{Major: 8, Minor: 9}}
}

// clipMeasured is what clip_get_mem_usage of llama.cpp v0.5.0 says of the
// fixtures' projectors: on a CUDA device of compute capability 8.9 with what
// stays on the host, and on the CPU alone.
var clipMeasured = []struct {
	name           string
	gpu, host, cpu uint64
}{
	{"gemma3", 977011136, 9633792, 977011136},
	{"gemma4v", 476407808, 7096320, 476407808},
	{"glm4v", 2327018496, 20042752, 2327018496},
	{"idefics3", 220296192, 3145728, 220296192},
	{"internvl", 690970624, 2408448, 690970624},
	{"janus_pro", 638316544, 1769472, 638316544},
	{"kimivl", 941906880, 2416640, 941906880},
	{"lfm2", 220601344, 3145728, 220601344},
	{"lightonocr", 886726656, 8388640, 886726656},
	{"llama4", 1785663872, 9748992, 1767605824},
	{"mlp", 648187520, 1359392, 648187424},
	{"paddleocr", 992382400, 7426048, 992382400},
	{"phi4", 864440256, 602112, 864440256},
	{"pixtral-mistral3", 945795072, 8388640, 945795072},
	{"pixtral", 887425024, 788480, 887425024},
	{"qwen2.5o", 3437888512, 308152896, 3437888320},
	{"qwen2.5vl_merger", 2093157376, 306616896, 2093157184},
	{"qwen2a", 1343033344, 1536000, 1343033344},
	{"qwen2vl_merger", 1632662528, 20042752, 1632662528},
	{"qwen3vl_merger", 1549165760, 26136832, 1549165760},
	{"resampler", 1081081984, 2424320, 1081081984},
	{"ultravox", 1433243648, 1536000, 1433243648},
	{"voxtral", 1382862848, 1536000, 1382862848},
}
