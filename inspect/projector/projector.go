// Package projector reads the multimodal projectors that llama.cpp loads beside
// a language model (--mmproj): which towers for images and audio they hold, at
// what sizes these work, and their compute graphs as shapes.
//
// Source of all of it: tools/mtmd/clip.cpp and tools/mtmd/models at llama.cpp
// v0.5.0.
package projector

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"weigh/formats"
	"weigh/inspect/graph"
	"weigh/inspect/model"
)

// A Projector is one projector file.
type Projector struct {
	BatchTokens int // of images that are encoded at once (--mtmd-batch-max-tokens); 0: llama-server's own 1024

	Towers  []*Tower // that llama.cpp loads: vision first
	tensors []model.Tensor
	index   map[string]int
}

// A Tower encodes images or audio.
type Tower struct {
	Type  string // of the projector: "gemma3", "qwen2vl_merger", …
	Audio bool

	p      *Projector
	family *family // nil for a type without a builder
	h      hparams
}

// A Size is the shape of one input: the side lengths of an image in pixels, or
// the frames and mel bins of audio; and how many are encoded at once.
type Size struct{ X, Y, Batch int }

// hparams are a tower's parameters (struct clip_hparams).
type hparams struct {
	imageSize, patch, merge    int
	embd, ff, heads, headsKV   int
	headDim, layers, projector int
	maxPixels                  int // of one image; 0 for a fixed size
	edge                       int // longest side of an image, 0 for no bound
	warm                       int // side of the image that memory is reserved for
	melBins, stack             int
	act                        act
	window                     int // every how many layers attention is full; 0: all
	features, full, modes      []int
	queries, insert, expert    int
	maxTokens                  int // of one image, as the user bounds them (--image-max-tokens); 0 for no bound
}

// warmAudio is the length of audio that memory is reserved for, in frames
// (clip_hparams::warmup_audio_size).
const warmAudio = 3000

// batchTokens is the most tokens of images that are encoded at once
// (mtmd_context_params::batch_max_tokens).
const batchTokens = 1024

// ErrNone is the error for a file without a tower.
var ErrNone = errors.New("no clip.has_vision_encoder or clip.has_audio_encoder: this is no multimodal projector")

// Read returns the projector that the metadata and tensors of a file describe.
// maxTokens bounds the tokens of one image (--image-max-tokens); 0 for the
// projector's own bound.
func Read(meta model.Meta, tensors []model.Tensor, maxTokens int) (*Projector, error) {
	p := &Projector{tensors: tensors, index: make(map[string]int, len(tensors))}
	for i := range tensors {
		p.index[tensors[i].Name] = i
	}
	k := &keys{meta: meta}
	vision, audio := k.flag("clip.has_vision_encoder"), k.flag("clip.has_audio_encoder")
	if !vision && !audio {
		return nil, ErrNone
	}
	if vision {
		if err := p.add(k, false, maxTokens); err != nil {
			return nil, err
		}
		// Source: clip_init; the audio tensors of Gemma 3n are not used.
		audio = audio && p.Towers[0].Type != "gemma3nv"
	}
	if audio {
		if err := p.add(k, true, maxTokens); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// add reads one tower.
//
// Source: clip_model_loader::load_hparams.
func (p *Projector) add(k *keys, audio bool, maxTokens int) error {
	k.prefix = "clip.vision."
	if audio {
		k.prefix = "clip.audio."
	}
	t := &Tower{Audio: audio, p: p}
	if t.Type = k.str("clip.projector_type"); t.Type == "" {
		t.Type = k.str(k.prefix + "projector_type")
	}
	if t.Type == "qwen2.5o" {
		t.Type = "qwen2.5vl_merger"
		if audio {
			t.Type = "qwen2a"
		}
	}
	t.family = families[t.Type]
	h := &t.h
	h.maxTokens = min(maxTokens, 1<<20)
	h.embd, h.heads, h.ff = k.need("embedding_length"), k.need("attention.head_count"), k.need("feed_forward_length")
	h.layers, h.projector = k.need("block_count"), k.need("projection_dim")
	h.headDim, h.headsKV = k.int("attention.head_dim", 0), k.int("attention.head_count_kv", h.heads)
	h.merge = 1
	if audio {
		h.melBins, h.patch = k.need("num_mel_bins"), 1
	} else {
		h.imageSize, h.patch = k.need("image_size"), k.need("patch_size")
	}
	h.warm = h.imageSize
	h.act = geluQuick
	switch {
	case k.flag("clip.use_gelu"):
		h.act = gelu
	case k.flag("clip.use_silu"):
		h.act = silu
	}
	h.features = k.ints("feature_layer")
	if t.family != nil && t.family.settle != nil {
		t.family.settle(k, h)
	}
	if k.err != nil {
		return k.err
	}
	for _, v := range []struct {
		key       string
		n, lo, hi int
	}{
		{"image_size", h.imageSize, 0, 8192},
		{"patch_size", h.patch, 1, 65535},
		{"embedding_length", h.embd, 1, 1 << 24},
		{"projector scale", h.merge, 1, 65535},
		{"num_mel_bins", h.melBins, 0, 1 << 16},
		{"attention.head_count", h.heads, 0, 1 << 16},
	} {
		if v.n < v.lo || v.n > v.hi {
			return fmt.Errorf("%s%s: %d, want %d to %d", k.prefix, v.key, v.n, v.lo, v.hi)
		}
	}
	if h.headDim == 0 && h.heads > 0 {
		h.headDim = h.embd / h.heads
	}
	if h.modes != nil && len(h.modes) != h.layers {
		return fmt.Errorf("%swa_pattern_mode: %d values for %d layers", k.prefix, len(h.modes), h.layers)
	}
	p.Towers = append(p.Towers, t)
	return nil
}

// Known reports whether the tower's graph is known.
func (t *Tower) Known() bool { return t.family != nil && t.family.build != nil }

// Measured reports whether the graph has been compared with llama.cpp's own.
func (t *Tower) Measured() bool { return t.Known() && !t.family.unmeasured }

// Lost returns the tensors that llama.cpp refuses to load the tower without and
// that are not there, besides those that its graph cannot be built without.
//
// Source: clip_model_loader::load_tensors.
func (t *Tower) Lost() (names []string) {
	if t.family == nil {
		return nil
	}
	for _, pattern := range strings.Fields(t.family.needs) {
		layers := 1
		if strings.Contains(pattern, "%d") {
			layers = min(t.h.layers, len(t.p.tensors))
		}
		for il := range layers {
			name := strings.ReplaceAll(pattern, "%d", strconv.Itoa(il))
			if _, ok := t.p.index[name]; !ok {
				names = append(names, name)
			}
		}
	}
	return names
}

// WarmUp returns the input that llama.cpp reserves memory for when it starts.
//
// Source: clip_model_loader::get_dummy_batch.
func (t *Tower) WarmUp() Size {
	if t.Audio {
		return Size{warmAudio, t.h.melBins, 1}
	}
	return Size{t.h.warm, t.h.warm, 1}
}

// Largest returns the inputs that can take more memory than [Tower.WarmUp]: the
// largest image, or as many smaller ones as are encoded at once.
func (t *Tower) Largest() []Size {
	if t.Audio || t.family == nil {
		return nil
	}
	h := &t.h
	grid := h.patch * h.merge
	var sizes []Size
	side := h.warm
	if h.maxPixels > 0 {
		// A side is rounded to the grid of tokens.
		side = pad(int(math.Ceil(math.Sqrt(float64(h.maxPixels)))), grid)
	}
	if h.edge > 0 {
		side = min(max(side, h.edge), max(pad(h.edge, grid), h.warm))
	}
	if side > h.warm {
		sizes = append(sizes, Size{side, side, 1})
	}
	if per := h.warm / grid; t.family.batches && per > 0 {
		if n := cmp.Or(t.p.BatchTokens, batchTokens) / (per * per); n > 1 {
			sizes = append(sizes, Size{h.warm, h.warm, n})
		}
	}
	return sizes
}

func pad(n, to int) int { return (n + to - 1) / to * to }

// shared names the tensors that both towers load, each its own copy, if the
// file has them.
var shared = []string{"v.class_embd", "v.patch_embd.weight", "v.patch_embd.weight.1", "v.patch_embd.bias", "v.norm_embd.weight", "v.norm_embd.bias"}

// Weights returns the tensors that the tower loads.
//
// Source: clip_model_loader::load_tensors.
func (t *Tower) Weights() []model.Tensor {
	both := len(t.p.Towers) == 2
	var w []model.Tensor
	for _, x := range t.p.tensors {
		audio := strings.HasPrefix(x.Name, "a.") || strings.HasPrefix(x.Name, "mm.a.")
		switch {
		case audio != t.Audio && (both || audio), strings.HasPrefix(x.Name, "a.gen."), isClamp(x.Name),
			x.Name == "a.mel_filters", x.Name == "a.window":
			continue
		}
		w = append(w, x)
	}
	if t.Audio && both {
		for _, name := range shared {
			if i, ok := t.p.index[name]; ok {
				w = append(w, t.p.tensors[i])
			}
		}
	}
	return w
}

// isClamp reports whether the tensor is a bound of a clipped product, which is
// read into a parameter.
func isClamp(name string) bool {
	for _, s := range []string{".input_min", ".input_max", ".output_min", ".output_max"} {
		if strings.HasSuffix(name, s) {
			return true
		}
	}
	return false
}

// Build returns the graph that encodes an input of the given size, with
// weights in buffer buf. Tensors that do not fit each other are an error.
func (t *Tower) Build(size Size, flash bool, buf int16) (*graph.Graph, error) {
	if !t.Known() {
		return nil, fmt.Errorf("the graph of projector type %.40q is not known", t.Type)
	}
	b := &builder{
		Graph: graph.New(4096), hparams: &t.h, t: t, flash: flash, buf: buf, leafs: map[int]*graph.Tensor{},
		nx: int64(size.X), ny: int64(size.Y), batch: int64(size.Batch),
	}
	b.px, b.py = b.nx/int64(t.h.patch), b.ny/int64(t.h.patch)
	b.n, b.e, b.dh = b.px*b.py, int64(t.h.embd), int64(t.h.headDim)
	err := graph.Try(func() { b.Expand(t.family.build(b)) })
	if err != nil {
		return nil, fmt.Errorf("projector %.40q: %w", t.Type, err)
	}
	return b.Graph, nil
}

// keys reads metadata. The first bad value fails all.
type keys struct {
	meta   model.Meta
	prefix string
	err    error
}

func (k *keys) fail(key, format string, args ...any) {
	if k.err == nil {
		k.err = fmt.Errorf("%s: %s", key, fmt.Sprintf(format, args...))
	}
}

func (k *keys) flag(key string) bool {
	v, _ := k.meta.Lookup(key)
	b, _ := v.(bool)
	return b
}

func (k *keys) str(key string) string {
	v, _ := k.meta.Lookup(key)
	s, _ := v.(string)
	return s
}

// int returns a count of the tower, or otherwise when there is none.
func (k *keys) int(key string, otherwise int) int {
	v, ok := k.meta.Lookup(k.prefix + key)
	if !ok {
		return otherwise
	}
	n, ok := v.(int64)
	if !ok || n < 0 || n > math.MaxInt32 {
		k.fail(k.prefix+key, "%v, want a whole number of at most %d", v, math.MaxInt32)
		return otherwise
	}
	return int(n)
}

// need is int for a key without which llama.cpp refuses the file.
func (k *keys) need(key string) int {
	if _, ok := k.meta.Lookup(k.prefix + key); !ok {
		k.fail(k.prefix+key, "missing: llama.cpp refuses to load a projector without it")
	}
	return k.int(key, 0)
}

// ints returns a list, nil when there is none.
func (k *keys) ints(key string) []int {
	v, ok := k.meta.Lookup(k.prefix + key)
	if !ok {
		return nil
	}
	list, ok := v.([]int64)
	if !ok {
		k.fail(k.prefix+key, "want a list of whole numbers")
		return nil
	}
	out := make([]int, len(list))
	for i, n := range list {
		out[i] = int(n)
	}
	return out
}

// limit bounds the tokens of an image, where the user does not.
//
// Source: clip_hparams::set_limit_image_tokens.
func (h *hparams) limit(maxTokens int) {
	if h.maxTokens > 0 {
		maxTokens = h.maxTokens
	}
	h.maxPixels = maxTokens * h.area()
	h.warm = int(math.Sqrt(float64(h.maxPixels)))
}

// area returns the pixels of one token.
func (h *hparams) area() int {
	return min(h.patch, 1<<16) * min(h.patch, 1<<16) * min(h.merge, 1<<8) * min(h.merge, 1<<8)
}

// warmUp sets the side of the first image in tokens.
func (h *hparams) warmUp(side int) { h.warm = side * min(h.patch, 1<<16) * min(h.merge, 1<<16) }

// pixels reads the bounds of an image from the file.
func (h *hparams) pixels(k *keys) {
	k.need("image_min_pixels")
	h.maxPixels = k.need("image_max_pixels")
}

var f32 = formats.F32
