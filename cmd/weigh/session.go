package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"weigh/cmd/weigh/internal/llama"
	"weigh/estimate"
	"weigh/estimate/hw"
	"weigh/estimate/hw/detect"
	"weigh/formats"
	"weigh/inspect"
	"weigh/inspect/arch"
	"weigh/inspect/check"
	"weigh/inspect/model"
	"weigh/inspect/projector"
	"weigh/inspect/store"
)

// A request is what the user asks of a model: llama-server's flags and our own.
type request struct {
	*llama.Flags
	gpus       []string
	rpcMemory  []string
	hostMemory string
	backend    string
	reserve    string
	nOutputs   int
	mtp        bool
	json       bool
	configs    []llama.Config
	shown      string      // the model's path as it is written, when it is another
	machine    *hw.Machine // when it is known already
}

// addRequestFlags defines our own flags of the commands that take
// llama-server's as well.
func addRequestFlags(f *pflag.FlagSet, r *request) {
	f.StringArrayVar(&r.gpus, "gpu", nil, "use this `hardware` instead of what is detected: a card's name, a size, 2x\"RTX 3090\", none")
	f.StringSliceVar(&r.rpcMemory, "rpc-memory", nil, "memory of each --rpc server, instead of asking it")
	f.StringVar(&r.hostMemory, "host-memory", "", "host memory to assume")
	f.StringVar(&r.backend, "backend", "", "whose buffer rules: cuda, rocm, vulkan, metal, sycl or cpu")
	f.StringVar(&r.reserve, "reserve", "", "memory to leave free on each device (--fit-target)")
	f.IntVar(&r.nOutputs, "n-outputs-max", -1, "outputs per batch that the graph is sized for; 0: n_batch")
	f.BoolVar(&r.mtp, "mtp", false, "load the multi-token-prediction layers")
	f.BoolVar(&r.json, "json", false, "write one JSON document")
}

// parseRequest splits a command's arguments into llama-server's flags, ours and
// the words that remain, and sets the first two.
func parseRequest(cmd *cobra.Command, r *request, args []string) (words []string, err error) {
	fs := cmd.Flags()
	own := func(name string) (known, value bool) {
		if name == "-h" || name == "--help" {
			return true, false
		}
		long, ok := strings.CutPrefix(name, "--")
		if !ok {
			return false, false
		}
		f := fs.Lookup(long)
		return f != nil, f != nil && f.NoOptDefVal == ""
	}
	var rest []string
	if r.configs, err = configs(); err != nil {
		return nil, err
	}
	if r.Flags, rest, err = llama.Parse(args, own, os.LookupEnv, r.configs...); err != nil {
		return nil, err
	}
	if err := fs.Parse(rest); err != nil {
		return nil, err
	}
	return fs.Args(), nil
}

// configs reads llama.cpp's configuration files, the system's and the user's.
//
// Source: common/arg.cpp@v0.5.0, common_params_apply_system_config;
// common/common.cpp, fs_get_config_directory.
func configs() (found []llama.Config, err error) {
	var dirs []string
	if data := os.Getenv("PROGRAMDATA"); runtime.GOOS == "windows" && data != "" {
		dirs = append(dirs, data)
	} else if runtime.GOOS != "windows" {
		dirs = append(dirs, "/etc")
	}
	switch config, home := os.Getenv("XDG_CONFIG_HOME"), os.Getenv("HOME"); {
	case runtime.GOOS == "windows":
		if data := os.Getenv("APPDATA"); data != "" {
			dirs = append(dirs, data)
		}
	case config != "":
		dirs = append(dirs, config)
	case home != "":
		dirs = append(dirs, filepath.Join(home, ".config"))
	}
	const most = 1 << 20
	for _, dir := range dirs {
		path := filepath.Join(dir, "llama.cpp", "config.ini")
		f, size, err := formats.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return nil, err
		}
		text := make([]byte, min(size, most))
		n, err := f.ReadAt(text, 0)
		f.Close()
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		if size > most {
			return nil, fmt.Errorf("%s: %d bytes are no configuration", path, size)
		}
		found = append(found, llama.Config{Path: path, Text: string(text[:n])})
	}
	return found, nil
}

// helpAsked prints the help where it is asked for.
func helpAsked(cmd *cobra.Command, args []string) bool {
	if i := slices.Index(args, "--"); i >= 0 {
		args = args[:i]
	}
	if slices.Contains(args, "--help") || slices.Contains(args, "-h") {
		_ = cmd.Help()
		return true
	}
	return false
}

// A session is an opened model with the machine and the settings it is weighed
// for.
type session struct {
	*inspect.Inspection
	machine   hw.Machine
	req       *request
	asked     estimate.Options // as the user set them
	options   estimate.Options // as llama-server would run them
	breakdown *estimate.Breakdown
	steps     []string // of --fit
	unfit     error    // --fit found no way
	refused   string   // why llama.cpp would not load the model, "" when it would
	notes     []string
}

// Close closes the model.
func (s *session) Close() { s.Inspection.Close() }

// newSession opens the model and gathers what an estimate needs. A model that
// llama.cpp cannot run is an error.
func newSession(ctx context.Context, name string, r *request) (*session, error) {
	ins, err := openTarget(name)
	if err != nil {
		return nil, err
	}
	s := &session{Inspection: ins, req: r}
	switch {
	case ins.Model == nil:
		s.Close()
		return nil, fmt.Errorf("%s: %w", name, ins.Reason)
	case ins.Weightless() && !ins.Defined():
		s.Close()
		return nil, fmt.Errorf("%s: no weights are here to be weighed; weigh inspect says how its caches grow", name)
	}
	if ins.HF != nil {
		s.notes = append(s.notes, "llama.cpp reads GGUF files: these are the figures of the one that its converter makes of this folder")
		if ins.Defined() {
			s.notes = append(s.notes, "no weights are here: they are taken to be those that the class defines, unpacked; the caches are exact")
		}
		if why := ins.HF.Refused; why != "" {
			s.notes = append(s.notes, "the converter refuses these weights, and the figures are of the unpacked ones: "+why)
		}
	}
	for _, key := range ins.Override(r.Meta) {
		s.notes = append(s.notes, fmt.Sprintf("--override-kv %s: the file's value is of another type and stays", key))
	}
	if ins.Model == nil {
		s.Close()
		return nil, fmt.Errorf("%s: with --override-kv: %w", name, ins.Reason)
	}
	s.noteRefusal()
	s.notes = append(s.notes, r.Notes...)
	if err := s.gather(ctx); err != nil {
		s.Close()
		return nil, err
	}
	if d := s.asked.Draft; ins.Defined() && (s.asked.MTP || d != nil && d.Shares) {
		s.Close()
		return nil, fmt.Errorf("%s: no weights are here, and those of multi-token prediction are not among the ones that the class is known to define", name)
	}
	return s, nil
}

// noteRefusal notes why llama.cpp would refuse to load the model, unless that is
// said already.
func (s *session) noteRefusal() {
	p := check.Refusal(s.Inspection)
	if p == nil || p.Code == "unknown-architecture" || p.Code == "not-convertible" {
		return
	}
	s.refused = fmt.Sprintf("llama.cpp v%s would refuse to load this model: %s: %s", llamacppVersion, p.Field, p.Message)
	s.notes = append(s.notes, s.refused+"; weigh check lists every reason")
}

// A faultyModelError is the error for a model that cannot be weighed, as opposed
// to settings that cannot be.
type faultyModelError struct {
	path string
	why  string // what of the model's files contradicts itself; "" when that is not known
	err  error
}

func (e *faultyModelError) Error() string {
	text := e.path + ": " + e.err.Error()
	if e.why != "" {
		text += "; " + e.why
	}
	return text
}

func (e *faultyModelError) Unwrap() error { return e.err }

// blame says of an error of the estimate which file it is about.
func (s *session) blame(err error) error {
	var model *estimate.ModelError
	var draft *estimate.DraftError
	switch {
	case !errors.As(err, &model):
		return err
	case errors.As(err, &draft) && s.req.Draft.Model != "":
		return &faultyModelError{s.req.Draft.Model, "", err}
	}
	return &faultyModelError{s.Path, s.refused, err}
}

// gather finds the machine and turns the flags into options.
func (s *session) gather(ctx context.Context) (err error) {
	r := s.req
	var findings []detect.Finding
	if r.machine != nil {
		s.machine = *r.machine
		s.machine.Devices = slices.Clone(s.machine.Devices)
	} else {
		if s.machine, findings, err = machine(ctx, r.gpus, r.RPC, r.rpcMemory); err != nil {
			return err
		}
		for _, f := range findings {
			if f.Severity == detect.Error || f.Severity == detect.Warning {
				s.notes = append(s.notes, f.Message+": weigh doctor says more")
			}
		}
	}
	if r.hostMemory != "" {
		n, err := hw.ParseSize(r.hostMemory)
		if err != nil {
			return fmt.Errorf("--host-memory: %w", err)
		}
		s.machine.Host.MemoryTotal, s.machine.Host.MemoryAvailable, s.machine.Host.Limit = &n, &n, nil
	} else if i := slices.IndexFunc(s.machine.Devices, func(d hw.Device) bool { return d.HostMemory > 0 }); i >= 0 {
		// A machine that is named by its chip has no memory but the chip's, of which the system takes some.
		d := s.machine.Devices[i]
		total := d.HostMemory
		free := total - total/12
		s.machine.Host.MemoryTotal, s.machine.Host.MemoryAvailable, s.machine.Host.Limit = &total, &free, nil
		s.notes = append(s.notes, "the host's memory is taken to be the "+d.Name+"'s, which it shares; --host-memory says otherwise")
	}
	if err := s.chooseBackend(); err != nil {
		return err
	}
	o := r.Options
	// llama.cpp takes the devices of rpc-servers first (llama_model_load_from_file_impl).
	slices.SortStableFunc(s.machine.Devices, func(a, b hw.Device) int {
		return cmp.Compare(min(1, len(b.Remote)), min(1, len(a.Remote)))
	})
	numberDevices(s.machine.Devices)
	o.Host = s.machine.Host
	o.Repack = repackOf(s.machine.Host)
	if len(r.Devices) > 0 {
		if o.Devices, err = chosenDevices(s.machine.Devices, r.Devices); err != nil {
			return fmt.Errorf("-dev %w", err)
		}
	} else {
		var left []string
		o.Devices, left = hw.Taken(s.machine.Devices)
		s.notes = append(s.notes, left...)
	}
	if b := backends(o.Devices); len(b) > 1 {
		s.notes = append(s.notes, "these devices want a llama.cpp built for "+strings.Join(b, " and ")+"; -dev names those that yours has")
	}
	if len(o.Devices) > 1 {
		for _, f := range findings { // what changes the devices' order, or which they are
			if f.Severity == detect.Info && f.Hint != "" {
				s.notes = append(s.notes, f.Message+": "+f.Hint)
			}
		}
	}
	if r.nOutputs >= 0 {
		o.NOutputs = &r.nOutputs
	}
	o.MTP = o.MTP || r.mtp
	o.CacheRAM, o.Checkpoints = &r.CacheRAM, &r.Checkpoints
	o.NoMmap = r.LoadMode == "none" || r.LoadMode == "mlock" || r.LoadMode == "dio"
	if r.reserve != "" {
		n, err := hw.ParseSize(r.reserve)
		if err != nil {
			return fmt.Errorf("--reserve: %w", err)
		}
		r.FitOpts.Target = []uint64{n}
	}
	if err := s.companions(&o); err != nil {
		return err
	}
	s.asked = o
	return nil
}

// chooseBackend applies --backend.
func (s *session) chooseBackend() error {
	switch s.req.backend {
	case "":
		return nil
	case "cpu":
		s.machine.Devices = nil
		return nil
	case hw.CUDA, hw.ROCm, hw.Vulkan, hw.Metal, hw.SYCL:
		for i := range s.machine.Devices {
			d := &s.machine.Devices[i]
			d.Backend = s.req.backend
			d.Unified = d.Unified || d.Assumed && d.Backend == hw.Metal // every Mac that is sold
		}
		return nil
	}
	return fmt.Errorf("--backend %s: the buffer rules of cuda, rocm, vulkan, metal, sycl and cpu are known", s.req.backend)
}

// backends names the backends of the local devices, each once.
func backends(devices []hw.Device) (names []string) {
	for _, d := range devices {
		if d.Remote == "" && d.Backend != "" && !slices.Contains(names, d.Backend) {
			names = append(names, d.Backend)
		}
	}
	return names
}

// numberDevices gives the devices the numbers that their backends name them by.
func numberDevices(devices []hw.Device) {
	count := map[string]int{}
	for i := range devices {
		prefix := prefixOf(&devices[i])
		count[prefix]++
		devices[i].Number = count[prefix]
	}
}

// prefixOf returns what the name of a device of llama.cpp begins with.
func prefixOf(d *hw.Device) string {
	if d.Remote != "" {
		return "RPC"
	}
	return cmp.Or(map[string]string{hw.ROCm: "ROCm", hw.Vulkan: "Vulkan", hw.Metal: "MTL", hw.SYCL: "SYCL"}[d.Backend], "CUDA")
}

// deviceNamed returns the index of the device that llama.cpp calls so.
func deviceNamed(all []hw.Device, name string) (int, error) {
	var known []string
	for i := range all {
		n := prefixOf(&all[i]) + strconv.Itoa(all[i].Number-1)
		if strings.EqualFold(n, name) {
			return i, nil
		}
		known = append(known, n)
	}
	return 0, fmt.Errorf("%s: no such device; there is %s", name, strings.Join(append(known, "none"), ", "))
}

// chosenDevices returns the devices that -dev names, all of them when it is not
// given.
func chosenDevices(all []hw.Device, names []string) ([]hw.Device, error) {
	if len(names) == 0 {
		return slices.Clone(all), nil
	}
	chosen := []hw.Device{}
	if len(names) == 1 && names[0] == "none" {
		return chosen, nil
	}
	for _, n := range names {
		i, err := deviceNamed(all, n)
		if err != nil {
			return nil, err
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

// spare adds a device that the model itself does not use, unless it is there,
// and returns its index.
func spare(o *estimate.Options, d hw.Device) int {
	i := slices.IndexFunc(o.Devices, func(have hw.Device) bool { return prefixOf(&have) == prefixOf(&d) && have.Number == d.Number })
	if i < 0 {
		i = len(o.Devices)
		o.Devices = append(o.Devices, d)
		o.Spare++
	}
	return i
}

// repackOf returns the weight layouts of the host's processor.
func repackOf(h hw.Host) estimate.Repack {
	has := func(name string) bool { return slices.Contains(h.SIMD, name) }
	switch {
	case has("avx512"):
		return estimate.RepackAVX512
	case has("avx2"):
		return estimate.RepackAVX2
	case has("i8mm"):
		return estimate.RepackI8MM
	case has("dotprod"), has("neon"):
		return estimate.RepackDotProd
	case len(h.SIMD) > 0:
		return estimate.RepackNone
	}
	return estimate.RepackAVX512
}

// companions opens what is loaded beside the model.
func (s *session) companions(o *estimate.Options) error {
	r := s.req
	for _, path := range r.LoRA {
		c, err := companion(path, nil)
		if err != nil {
			return fmt.Errorf("--lora: %w", err)
		}
		o.LoRA = append(o.LoRA, *c)
	}
	for _, path := range r.ControlVectors {
		if _, err := companion(path, nil); err != nil {
			return fmt.Errorf("--control-vector: %w", err)
		}
	}
	o.ControlVector = len(r.ControlVectors) > 0
	if r.MMProj == "" && r.MMProjAuto && store.IsRef(r.Model) {
		// llama-server -hf and the other programs load the projector that lies beside the model.
		if m, err := store.Resolve(context.Background(), store.Local(), r.Model); err == nil && m.Projector != "" {
			r.MMProj = m.Projector
			s.notes = append(s.notes, "with the projector that is stored beside the model; --no-mmproj leaves it out")
		}
	}
	if r.MMProj != "" {
		c, err := companion(r.MMProj, func(meta model.Meta, c *estimate.Companion) (err error) {
			if c.Projector, err = projector.Read(meta, c.Tensors, r.ImageTokens); err == nil {
				c.Projector.BatchTokens = r.BatchTokens
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("--mmproj: %s: %w", r.MMProj, err)
		}
		o.MMProj = c
		if err := s.projectorDevice(o); err != nil {
			return err
		}
	}
	if r.Draft.HFRepo != "" {
		r.Draft.Model = stored(r.Draft.HFRepo, r.Draft.Model) // -md names a file of the repository
	}
	switch {
	case r.Draft.Model != "":
		draft, err := openTarget(r.Draft.Model)
		if err != nil {
			return fmt.Errorf("--model-draft: %w", err)
		}
		defer draft.Close()
		if draft.Model == nil {
			return fmt.Errorf("--model-draft: %s: %w", r.Draft.Model, draft.Reason)
		}
		if r.Draft.Types == nil {
			r.Draft.Types = arch.SpecTypes(draft.Model)
			r.Speculate(o)
			if r.Draft.Types == nil {
				s.notes = append(s.notes, "llama-server loads the draft but does not use it unless --spec-type names how, such as draft-simple")
			}
		}
		o.Draft = &estimate.Extra{Name: draft.Model.Name, Model: draft.Model, Options: s.draftOptions(o)}
		d := &o.Draft.Options
		d.NGPULayers, d.Overrides = r.Draft.NGPULayers, r.Draft.Overrides
		d.MTPContext = slices.Contains(r.Draft.Types, "draft-mtp")
		if len(r.Draft.Devices) > 0 {
			if d.Devices, err = chosenDevices(s.machine.Devices, r.Draft.Devices); err != nil {
				return fmt.Errorf("--device-draft %w", err)
			}
			if len(d.Devices) == 1 {
				d.SplitMode = estimate.SplitLayer
			}
			for _, dev := range d.Devices {
				spare(o, dev)
			}
		}
	case slices.Contains(r.Draft.Types, "draft-mtp"):
		d := s.draftOptions(o)
		d.MTP, d.MTPContext = true, true
		o.Draft = &estimate.Extra{Name: "multi-token prediction", Model: s.Model, Shares: true, Options: d}
	}
	return nil
}

// draftOptions returns what a draft runs with: as the model does, but for the
// types of its cache and its outputs.
//
// Source: common/speculative.cpp@v0.5.0, common_base_params_to_speculative.
func (s *session) draftOptions(o *estimate.Options) estimate.Options {
	d := *o
	d.TypeK, d.TypeV = s.req.Draft.TypeK, s.req.Draft.TypeV
	d.Embeddings, d.Pooling, d.NRsSeq = false, nil, 0
	d.LoRA, d.ControlVector, d.MMProj, d.MMProjDevice, d.Draft = nil, false, nil, nil, nil
	d.Devices, d.Spare = nil, 0
	outputs := cmp.Or(max(o.NParallel, 0), 4)
	if t := s.req.Draft.Types; slices.Contains(t, "draft-dflash") || slices.Contains(t, "draft-dspark") {
		outputs *= 1 + s.req.Draft.NMax // they draft a block at once
	}
	d.NOutputs = &outputs
	return d
}

// projectorDevice settles where the projector is: on the device of -mmdev, the
// first of -dev, or the first that there is.
//
// Source: common/arg.cpp@v0.5.0, common_params_parse_ex and -mmdev.
func (s *session) projectorDevice(o *estimate.Options) error {
	r := s.req
	name := r.MMProjDevice
	switch {
	case name == "" && !r.MMProjOffload:
		name = "none"
	case name == "" && len(r.Devices) > 0:
		name = r.Devices[0]
	}
	switch name {
	case "":
	case "none":
		o.MMProj.OnCPU = true
	default:
		i, err := deviceNamed(s.machine.Devices, name)
		if err != nil {
			return fmt.Errorf("-mmdev %w", err)
		}
		i = spare(o, s.machine.Devices[i])
		o.MMProjDevice = &i
	}
	return nil
}

// stored names a model of the local Hugging Face cache, or a file of one.
func stored(repo, file string) string {
	if file != "" {
		repo, _, _ = strings.Cut(repo, ":")
		repo += "/" + file
	}
	return "hf:" + repo
}

// companion opens a GGUF whose tensors are loaded beside a model; read, unless
// it is nil, takes what else it says.
func companion(path string, read func(model.Meta, *estimate.Companion) error) (*estimate.Companion, error) {
	ins, err := openTarget(path)
	if err != nil {
		return nil, err
	}
	defer ins.Close()
	if ins.GGUF == nil {
		return nil, fmt.Errorf("%s: llama.cpp wants a GGUF file here", path)
	}
	c := &estimate.Companion{Name: path}
	for _, t := range ins.GGUF.Tensors() {
		c.Tensors = append(c.Tensors, model.Tensor{Name: t.Name, Type: t.Type, Shape: t.Shape, Bytes: t.Bytes})
	}
	if read != nil {
		if err := read(ins.GGUF, c); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// weigh settles the options as llama-server would and estimates them.
func (s *session) weigh() (err error) {
	s.options = s.asked
	if s.req.Fit {
		o, steps, err := estimate.Fit(s.Model, s.asked, s.req.FitOpts)
		var unfit *estimate.UnfitError
		switch {
		case errors.As(err, &unfit):
			s.unfit = err
		case err != nil:
			return err
		}
		if len(s.asked.Overrides) == 0 {
			o.Overrides = slices.DeleteFunc(o.Overrides, func(v estimate.Override) bool {
				il, _, ok := layerPattern(v.Pattern)
				return ok && il >= s.Model.NLayerAll // --fit counts the output as a layer
			})
		}
		s.options, s.steps = o, steps
	}
	if s.breakdown, err = estimate.Run(s.Model, s.options); err != nil {
		return err
	}
	return estimate.Grow(s.Model, s.options, s.breakdown)
}

// A verdict is how a row of the breakdown stands to the memory it is in.
type verdict struct {
	need     uint64  // bytes, caches that grow at their limits included
	must     uint64  // bytes that are taken whatever happens
	free     *uint64 // bytes; nil: unknown
	fits     bool    // must is at most free, or free is unknown
	atLimits bool    // need is at most free, or free is unknown
}

func judge(need, grows uint64, free *uint64) verdict {
	v := verdict{need: need, must: need - min(grows, need), free: free, fits: true, atLimits: true}
	if free != nil {
		v.fits, v.atLimits = v.must <= *free, v.need <= *free
	}
	return v
}

// device returns the verdict of a device's row.
func (s *session) device(m *estimate.Memory) verdict {
	d := s.options.Devices[m.Device]
	free := d.MemoryFree
	if b := hw.Usable(d, 0); free == nil && b.Known { // the driver does not say: what is assumed to be free
		own, _ := hw.Context(d) // counted as overhead
		n := b.Bytes + own
		free = &n
	}
	return judge(m.Total(), 0, free)
}

// host returns all host rows as one and its verdict. Devices that share the
// host's memory count on it.
func (s *session) host() (sum estimate.Memory, v verdict) {
	sum.Name, sum.Device = "host", -1
	var grows uint64
	for i := range s.breakdown.Host {
		m := &s.breakdown.Host[i]
		sum.Model += m.Model
		sum.Context += m.Context
		sum.Compute += m.Compute
		sum.Overhead += m.Overhead
		for _, t := range m.Terms {
			if t.Name == "prompt cache" || t.Name == "checkpoints" {
				grows += t.Bytes
			}
		}
	}
	need := sum.Total()
	for i := range s.breakdown.Devices {
		d := &s.breakdown.Devices[i]
		need += s.options.Devices[d.Device].OnHost(d.Total())
	}
	var free *uint64
	if b, _, ok := s.machine.Host.Usable(); ok {
		free = &b
	}
	return sum, judge(need, grows, free)
}

// fits reports whether every row fits.
func (s *session) fits() bool {
	for i := range s.breakdown.Devices {
		if !s.device(&s.breakdown.Devices[i]).fits {
			return false
		}
	}
	_, v := s.host()
	return v.fits
}

// backend names the devices' backend, or "cpu".
func (s *session) backend() string {
	if len(s.options.Devices) == 0 {
		return "cpu"
	}
	return cmp.Or(s.options.Devices[0].Backend, hw.CUDA)
}

func lower(t formats.DType) string { return strings.ToLower(t.String()) }
