package hw

import "fmt"

// Remote returns a device of llama.cpp's rpc-server at endpoint ("host:port")
// with the memory the user says it has.
func Remote(endpoint string, memory uint64) Device {
	return Device{
		Name: "RPC", UUID: endpoint, Remote: endpoint, Assumed: true,
		MemoryTotal: &memory, MemoryFree: &memory,
		Source: map[string]string{"memory_total": "flag", "memory_free": "flag"},
		Notes:  []string{fmt.Sprintf("remote: weights and activations travel to %s over the network", endpoint)},
	}
}
