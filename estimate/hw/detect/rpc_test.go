package detect

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// rpcServer answers one connection with the bytes, whatever it is asked.
func rpcServer(t *testing.T, answer []byte, hold bool) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		conn.Write(answer)
		if !hold {
			conn.(*net.TCPConn).CloseWrite()
		}
		io.Copy(io.Discard, conn)
	}()
	return l.Addr().String()
}

// message frames an answer.
func message(data ...any) []byte {
	var b bytes.Buffer
	for _, d := range data {
		binary.Write(&b, binary.LittleEndian, d)
	}
	return append(binary.LittleEndian.AppendUint64(nil, uint64(b.Len())), b.Bytes()...)
}

func TestRPC(t *testing.T) {
	hello := slices.Clip(message([4]byte{7, 0, 0, 0}, [24]byte{}))
	two := bytes.Join([][]byte{hello, message(uint32(2)), message(uint64(20<<30), uint64(24<<30)), message(uint64(0), uint64(8<<30))}, nil)
	devices, err := RPC(t.Context(), rpcServer(t, two, true))
	if err != nil || len(devices) != 2 || value(devices[0].MemoryFree) != 20<<30 || value(devices[0].MemoryTotal) != 24<<30 || devices[1].MemoryFree == nil || devices[0].Remote == "" {
		t.Errorf("RPC() = %+v, %v", devices, err)
	}
	forged := bytes.Join([][]byte{hello, message(uint32(1)), message(uint64(30<<30), uint64(24<<30))}, nil)
	devices, err = RPC(t.Context(), rpcServer(t, forged, true))
	if err != nil || devices[0].MemoryTotal != nil || !strings.Contains(devices[0].Notes[0], "unknown") {
		t.Errorf("RPC() of more free than there is = %+v, %v, want it unknown", devices, err)
	}
	rejects := map[string]struct {
		answer []byte
		hold   bool
		says   string
	}{
		"another version":       {message([4]byte{6, 0, 0, 0}, [24]byte{}), true, "speaks version 6.0.0"},
		"a later version":       {message([4]byte{7, 1, 0, 0}, [24]byte{}), true, "speaks version 7.1.0"},
		"no devices":            {append(hello, message(uint32(0))...), true, "0 devices"},
		"too many devices":      {append(hello, message(uint32(1<<31))...), true, "2147483648 devices"},
		"an answer too long":    {message([100]byte{}), true, "an answer of 100 bytes, want 28"},
		"a web server":          {[]byte("HTTP/1.1 400 Bad Request\r\n"), true, "not llama.cpp's rpc-server"},
		"the end of the stream": {hello[:10], false, "EOF"},
		"silence":               {nil, true, "timeout"},
	}
	for name, tt := range rejects {
		t.Run(name, func(t *testing.T) {
			wait := time.Minute
			if tt.answer == nil {
				wait = 300 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), wait)
			defer cancel()
			if devices, err := RPC(ctx, rpcServer(t, tt.answer, tt.hold)); err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("RPC() = %+v, %v, want an error with %q", devices, err, tt.says)
			}
		})
	}
}

// TestRPCRequest pins the bytes of a request to llama.cpp's.
func TestRPCRequest(t *testing.T) {
	conn := &recorder{answer: bytes.NewReader(message(uint64(1), uint64(2)))}
	if err := callRPC(conn, rpcMemory, []byte{3, 0, 0, 0}, make([]byte, 16)); err != nil {
		t.Fatal(err)
	}
	if got, want := hex.EncodeToString(conn.sent), "0b"+"0400000000000000"+"03000000"; got != want {
		t.Errorf("sent %s, want %s", got, want)
	}
}

// recorder keeps what is written and answers from a reader.
type recorder struct {
	sent   []byte
	answer io.Reader
}

func (r *recorder) Write(b []byte) (int, error) { r.sent = append(r.sent, b...); return len(b), nil }
func (r *recorder) Read(b []byte) (int, error)  { return r.answer.Read(b) }
