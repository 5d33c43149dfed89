package sched

import (
	"fmt"
	"math/bits"

	"weigh/formats"
	"weigh/inspect/graph"
)

// VulkanLimits are what a Vulkan driver says of its device, in Vulkan's terms.
// Sizes are bytes.
type VulkanLimits struct {
	OffsetAlign   uint64 // minStorageBufferOffsetAlignment
	MapAlign      uint64 // minMemoryMapAlignment
	MaxRange      uint64 // maxStorageBufferRange
	MaxBuffer     uint64 // maxBufferSize, or maxMemoryAllocationSize without VK_KHR_maintenance4
	MaxAllocation uint64 // the smaller of the two
	SharedMemory  uint64 // maxComputeSharedMemorySize
	MaxWorkgroup  int    // maxComputeWorkGroupInvocations
	MemoryModel   bool   // vulkanMemoryModel: sorts rows of any length
	Index64       bool   // VK_EXT_shader_64bit_indexing: no MaxRange
	Addresses     bool   // shaderInt64 and bufferDeviceAddress: none for im2col
	Shuffle       bool   // subgroup shuffle and vote, or cooperative matrices of the second kind: flash attention
	FullSubgroups bool   // subgroup arithmetic and computeFullSubgroups: cumulative sums
	SubgroupSize  int    // lanes
	Integrated    bool   // an integrated GPU
	NoReorder     bool   // GGML_VK_DISABLE_GRAPH_OPTIMIZE is set
}

// Lavapipe returns the limits of Mesa's software device (llvmpipe).
func Lavapipe() VulkanLimits {
	return VulkanLimits{
		OffsetAlign: 16, MapAlign: 64, MaxRange: 128 << 20, MaxBuffer: 1<<32 - 1, MaxAllocation: 1 << 31,
		SharedMemory: 32 << 10, MaxWorkgroup: 1024, SubgroupSize: 8, MemoryModel: true, Addresses: true, Shuffle: true, FullSubgroups: true,
	}
}

// DiscreteVulkan returns limits that hold for the drivers of current discrete
// GPUs: the largest alignment and smallest sizes among them.
func DiscreteVulkan() VulkanLimits {
	return VulkanLimits{
		OffsetAlign: 64, MapAlign: 64, MaxRange: 1<<32 - 1, MaxBuffer: 1<<32 - 1, MaxAllocation: 1<<32 - 1<<21,
		SharedMemory: 48 << 10, MaxWorkgroup: 1024, SubgroupSize: 32, MemoryModel: true, Addresses: true, Shuffle: true, FullSubgroups: true,
	}
}

// Vulkan returns the rules of the i-th Vulkan device. All devices of a machine
// share the host memory of the first, whose limits host memory has.
//
// Source: ggml/src/ggml-vulkan/ggml-vulkan.cpp@v0.5.0,
// ggml_backend_vk_buffer_type_* and ggml_backend_vk_device_*.
func Vulkan(i int, l VulkanLimits) Device {
	chunk := min(uint64(1<<30), l.MaxAllocation)
	d := Device{
		Name:     fmt.Sprintf("Vulkan%d", i),
		Kind:     "Vulkan",
		Pinned:   &BufferType{Name: "Vulkan_Host", Align: l.MapAlign, MaxSize: chunk, Host: true},
		Async:    true,
		Supports: func(op *graph.Tensor) bool { return l.supports(op) },
		Offload:  func(op *graph.Tensor) bool { return batch(op) >= offloadBatch },
	}
	d.Buffer = BufferType{Name: d.Name, Align: l.OffsetAlign, MaxSize: chunk}
	if !l.NoReorder {
		d.Optimize = vulkanOptimize
	}
	return d
}

// fits reports whether one binding can hold t.
func (l *VulkanLimits) fits(t *graph.Tensor, addressed bool) bool {
	n := t.Bytes()
	return n <= l.MaxBuffer && (addressed || l.Index64 || n <= l.MaxRange)
}

// supports says whether the device runs op.
//
// Source: ggml_backend_vk_device_supports_op.
func (l *VulkanLimits) supports(op *graph.Tensor) bool {
	addressed := (op.Op == graph.OpIm2col || op.Op == graph.OpIm2col3D) && l.Addresses
	for _, s := range op.Src {
		if s != nil && !l.fits(s, addressed) {
			return false
		}
	}
	if !l.fits(op, addressed) {
		return false
	}
	a, b := op.Src[0], op.Src[1]
	f32 := func(ts ...*graph.Tensor) bool {
		for _, t := range ts {
			if t.Type != formats.F32 {
				return false
			}
		}
		return true
	}
	switch op.Op {
	case graph.OpUnary:
		return op.Sub <= graph.UnaryTrunc && float(a) && op.Type == a.Type
	case graph.OpGLU:
		return op.Sub <= graph.GLUSwiGLUClamp && float(a) && op.Type == a.Type && (b == nil || b.Type == a.Type)
	case graph.OpMulMat, graph.OpMulMatID:
		return vulkanMultiplies(op)
	case graph.OpFlashAttnExt:
		return l.attends(op)
	case graph.OpGetRows:
		return float(a) || oneOf(a.Type, formats.BF16, formats.I32) || a.Type.Quantized() && !oneOf(a.Type, formats.Q8_1, formats.Q8_K)
	case graph.OpGetRowsBack, graph.OpRepeatBack, graph.OpNorm, graph.OpL2Norm:
		return f32(op, a)
	case graph.OpSetRows:
		return float(a) && oneOf(b.Type, formats.I32, formats.I64) && vulkanWrites(op.Type)
	case graph.OpCont, graph.OpCpy, graph.OpDup:
		return vulkanCopies(op)
	case graph.OpRepeat:
		s := typeSize(op.Type)
		return s == typeSize(a.Type) && (s == 4 || s == 2)
	case graph.OpRope:
		return op.ContiguousRows() && a.ContiguousRows()
	case graph.OpGroupNorm:
		return a.Contiguous()
	case graph.OpAdd, graph.OpSub, graph.OpMul, graph.OpDiv:
		return float(a) && float(b) && float(op)
	case graph.OpAddID:
		return f32(op, a, b) && op.Src[2].Type == formats.I32
	case graph.OpSiLUBack, graph.OpRMSNormBack, graph.OpOptStepAdamw, graph.OpOptStepSGD, graph.OpScale,
		graph.OpDiagMaskInf, graph.OpArgmax, graph.OpPool1D, graph.OpPool2D:
		return a.Contiguous() && f32(a)
	case graph.OpSqr, graph.OpSqrt, graph.OpSin, graph.OpCos, graph.OpClamp, graph.OpLeakyReLU, graph.OpLog, graph.OpTri,
		graph.OpDiag:
		return float(a) && op.Type == a.Type
	case graph.OpOutProd:
		return a.Contiguous() && b.Contiguous() && f32(a, b, op)
	case graph.OpArgsort:
		return op.Contiguous() && a.Contiguous() && (l.MemoryModel || op.Ne[0] <= 1<<(bits.Len(uint(l.MaxWorkgroup))-1))
	case graph.OpTopK:
		return op.Contiguous() && a.Contiguous()
	case graph.OpUpscale:
		const bilinear, antialias = 1, 1 << 9
		return f32(a) && (op.Params[0]&antialias == 0 || op.Params[0]&0xff == bilinear)
	case graph.OpPad, graph.OpPadReflect1D, graph.OpRoll, graph.OpTimestepEmbedding, graph.OpSSMConv:
		return f32(a)
	case graph.OpAcc:
		return f32(a, b, op)
	case graph.OpSet:
		return a.Type == b.Type && a.Type == op.Type && oneOf(a.Type, formats.F32, formats.I32)
	case graph.OpConcat:
		if a.Type != b.Type || a.Type != op.Type {
			return false
		}
		if a.Type.Quantized() {
			return a.ContiguousRows() && b.ContiguousRows() && op.ContiguousRows()
		}
		s := typeSize(a.Type)
		return s == 1 || s == 2 || s == 4 || s == 8
	case graph.OpAdd1:
		return f32(a, b) || a.Type == formats.F16 && float(b)
	case graph.OpArange:
		return f32(op)
	case graph.OpFill:
		return float(op)
	case graph.OpSoftMax:
		return a.Contiguous() && f32(a) && (b == nil || float(b))
	case graph.OpSoftMaxBack:
		return a.Contiguous() && b.Contiguous() && f32(a, b)
	case graph.OpSum, graph.OpSumRows, graph.OpMean:
		return f32(a) && a.ContiguousRows()
	case graph.OpCumsum:
		return l.FullSubgroups && f32(a) && a.ContiguousRows()
	case graph.OpDSV4HCComb, graph.OpDSV4HCPre, graph.OpDSV4HCPost:
		for _, s := range op.Src {
			if s != nil && !f32(s) {
				return false
			}
		}
		if op.Op == graph.OpDSV4HCComb && !(l.Shuffle && l.FullSubgroups && l.SubgroupSize >= 16) {
			return false
		}
		return f32(op) && (op.Op != graph.OpDSV4HCPre || a.Ne[1] == 4) && (op.Op != graph.OpDSV4HCPost || b.Ne[1] == 4)
	case graph.OpSolveTri:
		return f32(op, a) && b.Ne[0] <= 1<<(bits.Len(uint(l.MaxWorkgroup))-1) &&
			l.SharedMemory/(uint64(a.Ne[0]+b.Ne[0])*4) > 0
	case graph.OpCountEqual:
		return a.Contiguous() && b.Contiguous() && a.Type == formats.I32 && b.Type == formats.I32
	case graph.OpIm2col:
		return b.Contiguous() && f32(b) && float(op)
	case graph.OpIm2col3D:
		return f32(b) && float(op)
	case graph.OpConv2DDw:
		return float(a) && f32(b)
	case graph.OpGatedLinearAttn:
		return f32(a, op) && a.Ne[0] == 64
	case graph.OpLightningIndexer:
		return l.indexes(op)
	case graph.OpGatedDeltaNet:
		switch op.Src[2].Ne[0] {
		case 16, 32, 64, 128:
		default:
			return false
		}
		for _, s := range op.Src[:6] {
			if s == nil || !f32(s) {
				return false
			}
		}
		return f32(op)
	case graph.OpSSMScan:
		for _, s := range op.Src[:6] {
			if s != nil && s.Type.Quantized() {
				return false
			}
		}
		return (op.Src[6] == nil || op.Src[6].Type == formats.I32) && f32(a, op) && op.Src[3] != nil && op.Src[3].Nb[1] == 4 &&
			(a.Ne[0] == 128 || a.Ne[0] == 256) && a.Ne[1]%16 == 0 && uint64(a.Ne[0])*4 <= l.SharedMemory
	case graph.OpConvTranspose1D:
		return f32(a, b)
	case graph.OpCol2im1D:
		return (float(a) || a.Type == formats.BF16) && op.Type == a.Type && a.Contiguous() && op.Contiguous()
	case graph.OpConv2D:
		return a.Ne[3] == op.Ne[2] && a.Ne[2] == b.Ne[2] && float(a) && f32(b, op) && a.Contiguous() && b.Contiguous() && op.Contiguous()
	case graph.OpConvTranspose2D:
		return a.Ne[2] == op.Ne[2] && a.Ne[3] == b.Ne[2] && float(a) && f32(b, op) && a.Contiguous() && b.Contiguous() && op.Contiguous()
	case graph.OpConv3D:
		return float(a) && f32(b, op) && a.Contiguous() && b.Contiguous() && op.Contiguous()
	case graph.OpNone, graph.OpReshape, graph.OpView, graph.OpPermute, graph.OpTranspose, graph.OpRMSNorm, graph.OpRopeBack,
		graph.OpRWKVWKV6, graph.OpRWKVWKV7:
		return true
	}
	return false
}

func vulkanMultiplies(op *graph.Tensor) bool {
	a, b := op.Src[0], op.Src[1]
	if op.Op == graph.OpMulMatID && op.Params[3] == graph.PrecF32 {
		return false
	}
	if !(float(a) || a.Type == formats.BF16 || a.Type.Quantized() && !oneOf(a.Type, formats.Q8_1, formats.Q8_K)) {
		return false
	}
	with := a
	if op.Op == graph.OpMulMatID {
		with = op.Src[2]
	}
	return with.Ne[3] == b.Ne[3] &&
		(plane(a) || float(a) || a.Type == formats.BF16) && (plane(b) || float(b)) &&
		!(a.Type == formats.BF16 && b.Type == formats.F16)
}

// plane reports whether the first two dimensions are packed.
//
// Source: ggml/src/ggml-vulkan/ggml-vulkan.cpp@v0.5.0,
// ggml_vk_dim01_contiguous.
func plane(t *graph.Tensor) bool {
	e, b := t.Type.Block()
	return t.Nb[0] == b && t.Nb[1] == b*uint64(t.Ne[0])/e && (t.Ne[3] == 1 || t.Nb[3] == t.Nb[2]*uint64(t.Ne[2]))
}

func (l *VulkanLimits) attends(op *graph.Tensor) bool {
	q, k, v, mask, sinks := op.Src[0], op.Src[1], op.Src[2], op.Src[3], op.Src[4]
	reads := func(t *graph.Tensor) bool { return keyType(t.Type) || t.Type == formats.IQ4_NL }
	return k.Ne[0]%8 == 0 && v.Ne[0]%8 == 0 &&
		(sinks == nil || sinks.Type == formats.F32) && q.Type == formats.F32 && op.Type == formats.F32 &&
		(mask == nil || mask.Type == formats.F16) && reads(k) && reads(v) &&
		(k.Type == formats.BF16) == (v.Type == formats.BF16) && l.Shuffle
}

func (l *VulkanLimits) indexes(op *graph.Tensor) bool {
	q, k := op.Src[0], op.Src[1]
	if !(keyType(k.Type) || k.Type == formats.IQ4_NL) || q.Ne[0] != 128 {
		return false
	}
	for _, t := range [...]*graph.Tensor{q, k, op.Src[2], op.Src[3], op} {
		s := typeSize(t.Type)
		if t.Nb[0] != s || t.ViewOffs%l.OffsetAlign != 0 || t.Nb[1]%s != 0 || t.Nb[2]%s != 0 || t.Nb[3]%s != 0 {
			return false
		}
	}
	return true
}

// vulkanWrites reports whether rows of floats can be stored as t.
func vulkanWrites(t formats.DType) bool {
	return oneOf(t, formats.F32, formats.F16, formats.BF16, formats.Q1_0, formats.Q2_0, formats.Q4_0, formats.Q4_1,
		formats.Q5_0, formats.Q5_1, formats.Q8_0, formats.IQ4_NL)
}

func vulkanCopies(op *graph.Tensor) bool {
	a := op.Src[0]
	to := a.Type
	if op.Src[1] != nil {
		to = op.Src[1].Type
	}
	switch {
	case a.Type == formats.F32 && (vulkanWrites(to) || to == formats.I32),
		to == formats.F32 && (vulkanWrites(a.Type) || a.Type == formats.I32),
		a.Type == formats.F16 && to == formats.F16:
		return true
	}
	return a.Type == to && (!a.Type.Quantized() || a.Contiguous() && op.Contiguous()) && typeSize(a.Type)%2 == 0
}
