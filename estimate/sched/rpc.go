package sched

import "weigh/inspect/graph"

// RPC returns the rules of a device of an rpc-server, whose memory follows the
// rules of the device that it really is. The server is not asked what it can
// run: it is taken to run everything, and nothing is brought to it to be run.
//
// Source: ggml/src/ggml-rpc/ggml-rpc.cpp@v0.5.0, ggml_backend_rpc_device_*,
// ggml_backend_rpc_buffer_type_get_alloc_size.
func RPC(endpoint string, real Device) Device {
	d := Device{
		Name:     "RPC0[" + endpoint + "]",
		Kind:     "RPC",
		Async:    true,
		Supports: func(*graph.Tensor) bool { return true },
	}
	d.Buffer = real.Buffer
	d.Buffer.Name = d.Name
	return d
}
