package projector

import "weigh/inspect/graph"

// A family is a type of projector: how it reads its parameters beyond those of
// all, and its graph.
type family struct {
	settle     func(k *keys, h *hparams)      // nil for nothing more
	build      func(b *builder) *graph.Tensor // returns the embeddings; nil where the graph is not known
	batches    bool                           // several images are encoded at once (clip_graph::support_batch)
	unmeasured bool                           // the graph has not been compared with that of llama.cpp
	swaps      bool                           // old files have the feed-forward matrices swapped
	needs      string                         // tensors that the loader demands, or the graph crashes without, and that others of the kind do without; %d stands for each layer
	postNorm   string                         // weight of the norm after the last layer, "" for the tower's own
}

// whisperNeeds are the needs of encoders made as Whisper's, whose first layer alone is asked.
const whisperNeeds = "a.conv1d.1.bias a.conv1d.2.bias a.blk.0.ln1.weight a.blk.0.ln1.bias a.blk.0.ln2.weight a.blk.0.ln2.bias a.blk.0.attn_q.bias a.blk.0.attn_v.bias"

// families holds the types by the name in the file.
//
// Source: tools/mtmd/clip-impl.h@v0.5.0, PROJECTOR_TYPE_NAMES; parameters:
// clip_model_loader::load_hparams.
var families = map[string]*family{
	"mlp":              {build: llava, swaps: true, needs: "mm.0.bias mm.2.weight mm.2.bias"},
	"ldp":              {build: llava, swaps: true, unmeasured: true},
	"ldpv2":            {build: llava, swaps: true, unmeasured: true},
	"adapter":          {build: llava, swaps: true, unmeasured: true},
	"gemma3":           {settle: scaled(4), build: gemma3, swaps: true},
	"idefics3":         {settle: scaled(1), build: idefics3, swaps: true},
	"lfm2":             {settle: limited(scaled(1), 256, 0), build: lfm2, needs: "mm.1.bias mm.2.bias"},
	"janus_pro":        {build: janus, needs: "mm.0.bias mm.1.bias"},
	"phi4":             {settle: pixeled(nil, 16), build: phi4, needs: "mm.0.bias mm.2.bias"},
	"pixtral":          {settle: limited(merged(1), 1024, 16), build: pixtral, needs: "v.token_embd.img_break"},
	"lightonocr":       {settle: lightOn, build: pixtral},
	"kimivl":           {settle: limited(scaled(1), 1024, 16), build: kimiVL, needs: "mm.input_norm.weight mm.input_norm.bias mm.1.bias mm.2.bias"},
	"kimik25":          {settle: kimiK25Sizes, build: kimiK25, unmeasured: true, needs: "mm.input_norm.weight mm.input_norm.bias mm.1.bias mm.2.bias"},
	"paddleocr":        {settle: pixeled(fixed(2), 28), build: paddleOCR, needs: "mm.input_norm.weight mm.input_norm.bias mm.1.bias mm.2.bias"},
	"dots_ocr":         {settle: pixeled(needScale, 46), build: dotsOCR, postNorm: "mm.post_norm.weight", unmeasured: true, needs: "mm.0.bias mm.2.bias"},
	"dots3note_v":      {settle: dots3Note, build: dotsOCR, postNorm: "mm.post_norm.weight", unmeasured: true, needs: "mm.0.bias mm.2.bias"},
	"qwen2vl_merger":   {settle: limited(qwenVL(false), 4096, 46), build: qwen2VL, swaps: true, needs: "mm.0.bias mm.2.bias"},
	"qwen2.5vl_merger": {settle: limited(qwenVL(true), 4096, 46), build: qwen2VL, swaps: true, needs: "mm.0.bias mm.2.bias"},
	"qwen3vl_merger":   {settle: limited(qwenVL(false), 4096, 46), build: qwen3VL, needs: "v.blk.%d.attn_qkv.bias mm.0.bias mm.2.bias"},
	"exaone4_5":        {settle: pixeled(qwenVL(false), 46), build: exaone, swaps: true, unmeasured: true, needs: "mm.0.bias mm.2.bias"},
	"mimovl":           {settle: pixeled(mimo, 46), build: mimoVL, unmeasured: true},
	"youtuvl":          {settle: limited(youtu, 62500, 16), build: youtuVL, unmeasured: true, needs: "mm.0.bias mm.2.bias"},
	"glm4v":            {settle: limited(merged(2), 4096, 46), build: glm4V, needs: "mm.patch_merger.bias"},
	"minimax_m3":       {settle: limited(merged(2), 576, 16), build: miniMax, unmeasured: true, needs: "mm.1.bias mm.2.bias mm.merger.fc1.bias mm.merger.fc2.bias"},
	"internvl":         {settle: scaled(1), build: internVL, batches: true, needs: "mm.model.mlp.0.bias mm.model.mlp.1.bias mm.model.mlp.3.bias"},
	"nemotron_v2_vl":   {settle: scaled(1), build: nemotron, unmeasured: true},
	"llama4":           {settle: scaled(1), build: llama4},
	"cogvlm":           {build: cogVLM, unmeasured: true, needs: "mm.post_fc_norm.bias"},
	"resampler":        {settle: resamplerQueries, build: miniCPMV, swaps: true, needs: "resampler.pos_embed_k resampler.attn.q.bias resampler.attn.k.bias resampler.attn.v.bias resampler.attn.out.bias resampler.ln_q.bias resampler.ln_kv.bias resampler.ln_post.bias"},
	"minicpmv4_6":      {settle: miniCPMV46Sizes, build: miniCPMV46, swaps: true, unmeasured: true},
	"hunyuanvl":        {settle: hunyuan, build: hunyuanVL, unmeasured: true, needs: "mm.0.bias mm.2.bias mm.model.fc.bias"},
	"step3vl":          {settle: step3Sizes, build: step3VL, unmeasured: true},
	"gemma3nv":         {settle: scaled(1), build: mobileNet, unmeasured: true},
	"gemma4v":          {settle: limited(scaled(3), 1120, 16), build: gemma4V, batches: true},
	"gemma4uv":         {settle: gemma4Unified, build: gemma4UV, unmeasured: true},

	"ultravox":      {settle: whisperSizes(true), build: whisper, needs: whisperNeeds},
	"voxtral":       {settle: whisperSizes(true), build: whisper, needs: whisperNeeds},
	"qwen2a":        {settle: whisperSizes(false), build: whisper, needs: whisperNeeds + " mm.a.fc.bias"},
	"glma":          {settle: whisperSizes(true), build: whisper, unmeasured: true, needs: whisperNeeds + " mm.a.mlp.1.bias mm.a.mlp.2.bias mm.a.norm_pre.bias"},
	"meralion":      {settle: whisperSizes(true), build: whisper, unmeasured: true, needs: whisperNeeds + " mm.a.mlp.0.bias mm.a.mlp.1.bias mm.a.mlp.2.bias mm.a.mlp.3.bias mm.a.norm_pre.bias"},
	"musicflamingo": {settle: whisperSizes(false), build: whisper, unmeasured: true, needs: whisperNeeds + " mm.a.mlp.1.bias mm.a.mlp.2.bias"},
	"qwen3a":        {settle: whisperSizes(false), build: qwen3Audio, unmeasured: true, needs: "a.conv2d.1.bias a.conv2d.2.bias a.conv2d.3.bias mm.a.mlp.1.bias mm.a.mlp.2.bias"},
	"gemma4a":       {build: gemma4A, unmeasured: true},
	"gemma4ua":      {settle: func(_ *keys, h *hparams) { h.melBins = 640 }, build: gemma4UA, unmeasured: true},
	"lfm2a":         {build: conformer, unmeasured: true},
}

// fixed sets how many patches a side of a token has.
func fixed(merge int) func(*keys, *hparams) {
	return func(_ *keys, h *hparams) { h.merge = merge }
}

// scaled reads the same, by the key of pixel shuffles.
func scaled(otherwise int) func(*keys, *hparams) {
	return func(k *keys, h *hparams) { h.merge = k.int("projector.scale_factor", otherwise) }
}

// merged reads the same, by the key of patch mergers.
func merged(otherwise int) func(*keys, *hparams) {
	return func(k *keys, h *hparams) { h.merge = k.int("spatial_merge_size", otherwise) }
}

func needScale(k *keys, h *hparams) { h.merge = k.need("projector.scale_factor") }

// limited bounds the tokens of an image; a side of the first one has warm
// tokens, or for 0 the most.
func limited(first func(*keys, *hparams), hi, warm int) func(*keys, *hparams) {
	return func(k *keys, h *hparams) {
		first(k, h)
		h.limit(hi)
		if warm > 0 {
			h.warmUp(warm)
		}
	}
}

// pixeled reads the bounds of an image from the file.
func pixeled(first func(*keys, *hparams), warm int) func(*keys, *hparams) {
	return func(k *keys, h *hparams) {
		if first != nil {
			first(k, h)
		}
		h.pixels(k)
		h.warmUp(warm)
	}
}

func lightOn(k *keys, h *hparams) {
	h.merge = k.int("spatial_merge_size", 1)
	h.edge = k.int("preproc_image_size", h.imageSize)
	h.maxPixels = h.edge * h.edge
	if h.maxTokens > 0 {
		h.maxPixels = h.maxTokens * h.area()
	}
	h.warmUp(16)
}
