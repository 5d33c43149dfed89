package detect

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"

	"weigh/estimate/hw"
)

// The part of llama.cpp's RPC protocol that asks a server for its devices.
// Numbers are little-endian. A request is the command (1 byte), the size of its
// data (8 bytes) and the data; an answer is a size and data.
//
// Source: llama.cpp ggml/src/ggml-rpc/ggml-rpc.cpp@v0.5.0, send_rpc_cmd and
// negotiate_hello; ggml/include/ggml-rpc.h, RPC_PROTO_MAJOR_VERSION and _MINOR_.
const (
	rpcMajor       = 7
	rpcMinor       = 0
	rpcMemory      = 11 // device (4 bytes) -> free, total (8 bytes each)
	rpcHello       = 14 // capabilities (24 bytes) -> version (4 bytes), capabilities
	rpcDeviceCount = 15 // nothing -> count (4 bytes)
	rpcCaps        = 24
)

// rpcLimit is how long a server may take when the caller sets no deadline.
const rpcLimit = 5 * time.Second

// RPC asks the llama.cpp rpc-server at endpoint ("host:port") for its devices.
// It says what memory they have, and nothing else of them.
func RPC(ctx context.Context, endpoint string) ([]hw.Device, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, rpcLimit)
		defer cancel()
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", endpoint)
	if err != nil {
		return nil, fmt.Errorf("rpc-server %s: %w", endpoint, err)
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return nil, fmt.Errorf("rpc-server %s: %w", endpoint, err)
		}
	}
	devices, err := askRPC(conn, endpoint)
	if err != nil {
		return nil, fmt.Errorf("rpc-server %s: %w", endpoint, err)
	}
	return devices, nil
}

// askRPC holds the conversation.
func askRPC(conn io.ReadWriter, endpoint string) ([]hw.Device, error) {
	hello := make([]byte, 4+rpcCaps)
	if err := callRPC(conn, rpcHello, make([]byte, rpcCaps), hello); err != nil {
		return nil, fmt.Errorf("greeting: %w", err)
	}
	if hello[0] != rpcMajor || hello[1] > rpcMinor {
		return nil, fmt.Errorf("it speaks version %d.%d.%d of the protocol, llama.cpp v0.5.0 speaks %d.%d", hello[0], hello[1], hello[2], rpcMajor, rpcMinor)
	}
	count := make([]byte, 4)
	if err := callRPC(conn, rpcDeviceCount, nil, count); err != nil {
		return nil, fmt.Errorf("device count: %w", err)
	}
	n := binary.LittleEndian.Uint32(count)
	if n == 0 || n > hw.MaxDevices {
		return nil, fmt.Errorf("it says it has %d devices", n)
	}
	devices := make([]hw.Device, n)
	for i := range devices {
		memory := make([]byte, 16)
		if err := callRPC(conn, rpcMemory, binary.LittleEndian.AppendUint32(nil, uint32(i)), memory); err != nil {
			return nil, fmt.Errorf("memory of device %d: %w", i, err)
		}
		free, total := binary.LittleEndian.Uint64(memory), binary.LittleEndian.Uint64(memory[8:])
		d := hw.Remote(endpoint, &total, &free, "rpc-server "+endpoint)
		if total == 0 || total > maxMemory || free > total {
			d = hw.Remote(endpoint, nil, nil, "")
			d.Notes = append(d.Notes, fmt.Sprintf("memory unknown: the server says %d bytes free of %d", free, total))
		}
		d.Index, d.Name = i, fmt.Sprintf("RPC%d", i)
		devices[i] = d
	}
	return devices, nil
}

// callRPC sends one request and reads its answer into out, which must be just
// as long.
func callRPC(conn io.ReadWriter, command byte, in, out []byte) error {
	request := binary.LittleEndian.AppendUint64([]byte{command}, uint64(len(in)))
	if _, err := conn.Write(append(request, in...)); err != nil {
		return err
	}
	var size uint64
	if err := binary.Read(conn, binary.LittleEndian, &size); err != nil {
		return err
	}
	if size != uint64(len(out)) {
		return fmt.Errorf("an answer of %d bytes, want %d: not llama.cpp's rpc-server, or another version", size, len(out))
	}
	_, err := io.ReadFull(conn, out)
	return err
}
