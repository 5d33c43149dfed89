package gguf

import (
	"encoding/binary"
	"fmt"
	"math"
)

// A Type is the type of a metadata value, by its number in the file
// (ggml/include/gguf.h@v0.5.0, enum gguf_type).
type Type uint32

// The value types.
const (
	Uint8 Type = iota
	Int8
	Uint16
	Int16
	Uint32
	Int32
	Float32
	Bool
	String
	Array
	Uint64
	Int64
	Float64
)

var typeNames = [...]string{"u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "str", "arr", "u64", "i64", "f64"}

// widths are the bytes of a value; 0 where it says its own length.
var widths = [...]uint64{1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8}

// String returns llama.cpp's name of the type, or "type N".
func (t Type) String() string {
	if !t.known() {
		return fmt.Sprintf("type %d", uint32(t))
	}
	return typeNames[t]
}

func (t Type) known() bool { return int(t) < len(typeNames) }

// width returns the bytes of a number or a bool; 0 for the other types.
func (t Type) width() uint64 {
	if !t.known() {
		return 0
	}
	return widths[t]
}

// A KV is one metadata entry, as written.
type KV struct {
	Key         string // byte for byte
	Type        Type
	Elem        Type   // of an array's elements
	Count       uint64 // elements of an array, else 1
	Offset      int64  // of the entry, from the start of the file
	ValueOffset int64  // of the number, the string's first byte or the array's first element
	Bytes       uint64 // from ValueOffset to the end of the entry

	num  uint64 // a number or bool, in its own width
	kept []byte // a string or an array, when short
}

// TypeName returns "u32", "str", "arr[i32]".
func (kv *KV) TypeName() string {
	if kv.Type == Array {
		return "arr[" + kv.Elem.String() + "]"
	}
	return kv.Type.String()
}

// Len is the value of an array that is counted, not decoded: its elements. For
// a string too long to return it is the bytes.
type Len int64

// value decodes kv as Lookup describes.
func (f *File) value(kv *KV) any {
	switch kv.Type {
	case String:
		b, err := f.bytes(kv)
		if err != nil {
			return Len(kv.Bytes)
		}
		return string(b)
	case Array:
		if v := f.arrayValue(kv); v != nil {
			return v
		}
		return Len(kv.Count)
	}
	return number(kv.Type, kv.num)
}

// arrayValue decodes a short array of numbers; nil when it is not to be.
func (f *File) arrayValue(kv *KV) any {
	if kv.Elem == String || kv.Count > maxDecode {
		return nil
	}
	b, err := f.bytes(kv)
	if err != nil {
		return nil
	}
	n, w := int(kv.Count), int(kv.Elem.width())
	switch kv.Elem {
	case Bool:
		v := make([]bool, n)
		for i := range v {
			v[i] = b[i] != 0
		}
		return v
	case Float32, Float64:
		v := make([]float64, n)
		for i := range v {
			v[i] = float(kv.Elem, f.uint(b[i*w:], w))
		}
		return v
	}
	v := make([]int64, n)
	for i := range v {
		x, ok := integer(kv.Elem, f.uint(b[i*w:], w))
		if !ok {
			return nil
		}
		v[i] = x
	}
	return v
}

// uint reads the first w bytes of b in the file's byte order.
func (f *File) uint(b []byte, w int) uint64 {
	var order binary.ByteOrder = binary.LittleEndian
	if f.BigEndian {
		order = binary.BigEndian
	}
	switch w {
	case 1:
		return uint64(b[0])
	case 2:
		return uint64(order.Uint16(b))
	case 4:
		return uint64(order.Uint32(b))
	}
	return order.Uint64(b)
}

// number returns the bits of a number or bool as bool, int64, uint64 (only
// above the range of int64) or float64.
func number(t Type, bits uint64) any {
	switch t {
	case Bool:
		return bits != 0
	case Float32, Float64:
		return float(t, bits)
	}
	if v, ok := integer(t, bits); ok {
		return v
	}
	return bits
}

// integer sign-extends; ok is false for a u64 over the range of int64.
func integer(t Type, bits uint64) (v int64, ok bool) {
	switch t {
	case Int8:
		return int64(int8(bits)), true
	case Int16:
		return int64(int16(bits)), true
	case Int32:
		return int64(int32(bits)), true
	case Uint64:
		return int64(bits), bits <= math.MaxInt64
	}
	return int64(bits), true
}

func float(t Type, bits uint64) float64 {
	if t == Float32 {
		return float64(math.Float32frombits(uint32(bits)))
	}
	return math.Float64frombits(bits)
}
