package graph

// An Op is an operator, in the order of enum ggml_op.
type Op uint8

// The operators of ggml.
const (
	OpNone Op = iota
	OpDup
	OpAdd
	OpAddID
	OpAdd1
	OpAcc
	OpSub
	OpMul
	OpDiv
	OpSqr
	OpSqrt
	OpLog
	OpSin
	OpCos
	OpSum
	OpSumRows
	OpCumsum
	OpMean
	OpArgmax
	OpCountEqual
	OpRepeat
	OpRepeatBack
	OpConcat
	OpSiLUBack
	OpNorm
	OpRMSNorm
	OpRMSNormBack
	OpGroupNorm
	OpL2Norm
	OpMulMat
	OpMulMatID
	OpOutProd
	OpScale
	OpSet
	OpCpy
	OpCont
	OpReshape
	OpView
	OpPermute
	OpTranspose
	OpGetRows
	OpGetRowsBack
	OpSetRows
	OpDiag
	OpDiagMaskInf
	OpDiagMaskZero
	OpSoftMax
	OpSoftMaxBack
	OpRope
	OpRopeBack
	OpClamp
	OpConvTranspose1D
	OpIm2col
	OpIm2colBack
	OpIm2col3D
	OpCol2im1D
	OpConv2D
	OpConv3D
	OpConv2DDw
	OpConvTranspose2D
	OpPool1D
	OpPool2D
	OpPool2DBack
	OpUpscale
	OpPad
	OpPadReflect1D
	OpRoll
	OpArange
	OpTimestepEmbedding
	OpArgsort
	OpTopK
	OpLeakyReLU
	OpTri
	OpFill
	OpFlashAttnExt
	OpFlashAttnBack
	OpSSMConv
	OpSSMScan
	OpWinPart
	OpWinUnpart
	OpGetRelPos
	OpAddRelPos
	OpRWKVWKV6
	OpGatedLinearAttn
	OpRWKVWKV7
	OpSolveTri
	OpGatedDeltaNet
	OpLightningIndexer
	OpDSV4HCComb
	OpDSV4HCPre
	OpDSV4HCPost
	OpUnary
	OpMapCustom1
	OpMapCustom2
	OpMapCustom3
	OpCustom
	OpCrossEntropyLoss
	OpCrossEntropyLossBack
	OpOptStepAdamw
	OpOptStepSGD
	OpGLU
)

var opNames = [...]string{
	OpNone:                 "NONE",
	OpDup:                  "DUP",
	OpAdd:                  "ADD",
	OpAddID:                "ADD_ID",
	OpAdd1:                 "ADD1",
	OpAcc:                  "ACC",
	OpSub:                  "SUB",
	OpMul:                  "MUL",
	OpDiv:                  "DIV",
	OpSqr:                  "SQR",
	OpSqrt:                 "SQRT",
	OpLog:                  "LOG",
	OpSin:                  "SIN",
	OpCos:                  "COS",
	OpSum:                  "SUM",
	OpSumRows:              "SUM_ROWS",
	OpCumsum:               "CUMSUM",
	OpMean:                 "MEAN",
	OpArgmax:               "ARGMAX",
	OpCountEqual:           "COUNT_EQUAL",
	OpRepeat:               "REPEAT",
	OpRepeatBack:           "REPEAT_BACK",
	OpConcat:               "CONCAT",
	OpSiLUBack:             "SILU_BACK",
	OpNorm:                 "NORM",
	OpRMSNorm:              "RMS_NORM",
	OpRMSNormBack:          "RMS_NORM_BACK",
	OpGroupNorm:            "GROUP_NORM",
	OpL2Norm:               "L2_NORM",
	OpMulMat:               "MUL_MAT",
	OpMulMatID:             "MUL_MAT_ID",
	OpOutProd:              "OUT_PROD",
	OpScale:                "SCALE",
	OpSet:                  "SET",
	OpCpy:                  "CPY",
	OpCont:                 "CONT",
	OpReshape:              "RESHAPE",
	OpView:                 "VIEW",
	OpPermute:              "PERMUTE",
	OpTranspose:            "TRANSPOSE",
	OpGetRows:              "GET_ROWS",
	OpGetRowsBack:          "GET_ROWS_BACK",
	OpSetRows:              "SET_ROWS",
	OpDiag:                 "DIAG",
	OpDiagMaskInf:          "DIAG_MASK_INF",
	OpDiagMaskZero:         "DIAG_MASK_ZERO",
	OpSoftMax:              "SOFT_MAX",
	OpSoftMaxBack:          "SOFT_MAX_BACK",
	OpRope:                 "ROPE",
	OpRopeBack:             "ROPE_BACK",
	OpClamp:                "CLAMP",
	OpConvTranspose1D:      "CONV_TRANSPOSE_1D",
	OpIm2col:               "IM2COL",
	OpIm2colBack:           "IM2COL_BACK",
	OpIm2col3D:             "IM2COL_3D",
	OpCol2im1D:             "COL2IM_1D",
	OpConv2D:               "CONV_2D",
	OpConv3D:               "CONV_3D",
	OpConv2DDw:             "CONV_2D_DW",
	OpConvTranspose2D:      "CONV_TRANSPOSE_2D",
	OpPool1D:               "POOL_1D",
	OpPool2D:               "POOL_2D",
	OpPool2DBack:           "POOL_2D_BACK",
	OpUpscale:              "UPSCALE",
	OpPad:                  "PAD",
	OpPadReflect1D:         "PAD_REFLECT_1D",
	OpRoll:                 "ROLL",
	OpArange:               "ARANGE",
	OpTimestepEmbedding:    "TIMESTEP_EMBEDDING",
	OpArgsort:              "ARGSORT",
	OpTopK:                 "TOP_K",
	OpLeakyReLU:            "LEAKY_RELU",
	OpTri:                  "TRI",
	OpFill:                 "FILL",
	OpFlashAttnExt:         "FLASH_ATTN_EXT",
	OpFlashAttnBack:        "FLASH_ATTN_BACK",
	OpSSMConv:              "SSM_CONV",
	OpSSMScan:              "SSM_SCAN",
	OpWinPart:              "WIN_PART",
	OpWinUnpart:            "WIN_UNPART",
	OpGetRelPos:            "GET_REL_POS",
	OpAddRelPos:            "ADD_REL_POS",
	OpRWKVWKV6:             "RWKV_WKV6",
	OpGatedLinearAttn:      "GATED_LINEAR_ATTN",
	OpRWKVWKV7:             "RWKV_WKV7",
	OpSolveTri:             "SOLVE_TRI",
	OpGatedDeltaNet:        "GATED_DELTA_NET",
	OpLightningIndexer:     "LIGHTNING_INDEXER",
	OpDSV4HCComb:           "DSV4_HC_COMB",
	OpDSV4HCPre:            "DSV4_HC_PRE",
	OpDSV4HCPost:           "DSV4_HC_POST",
	OpUnary:                "UNARY",
	OpMapCustom1:           "MAP_CUSTOM1",
	OpMapCustom2:           "MAP_CUSTOM2",
	OpMapCustom3:           "MAP_CUSTOM3",
	OpCustom:               "CUSTOM",
	OpCrossEntropyLoss:     "CROSS_ENTROPY_LOSS",
	OpCrossEntropyLossBack: "CROSS_ENTROPY_LOSS_BACK",
	OpOptStepAdamw:         "OPT_STEP_ADAMW",
	OpOptStepSGD:           "OPT_STEP_SGD",
	OpGLU:                  "GLU",
}

// String returns the name as ggml prints it.
func (o Op) String() string { return opNames[o] }

// A UnaryOp is the Sub of OpUnary.
type UnaryOp = uint8

// The unary functions, in the order of enum ggml_unary_op.
const (
	UnaryAbs UnaryOp = iota
	UnarySgn
	UnaryNeg
	UnaryStep
	UnaryTanh
	UnaryELU
	UnaryReLU
	UnarySigmoid
	UnaryGELU
	UnaryGELUQuick
	UnarySiLU
	UnaryHardswish
	UnaryHardsigmoid
	UnaryExp
	UnaryExpm1
	UnarySoftplus
	UnaryGELUErf
	UnaryXIELU
	UnaryFloor
	UnaryCeil
	UnaryRound
	UnaryTrunc
)

// A GLUOp is the Sub of OpGLU.
type GLUOp = uint8

// The gated activations, in the order of enum ggml_glu_op.
const (
	GLUReGLU GLUOp = iota
	GLUGEGLU
	GLUSwiGLU
	GLUSwiGLUOAI
	GLUGEGLUErf
	GLUGEGLUQuick
	GLUSwiGLUClamp
)
