package hw

// ethernetBps is what a link of 1 Gbit/s carries, bytes per second.
const ethernetBps = 125_000_000

// Remote returns a device of llama.cpp's rpc-server at endpoint ("host:port"),
// with what is free of its memory; nil is unknown. source says who knows. Its
// link is taken for Ethernet of 1 Gbit/s.
func Remote(endpoint string, total, free *uint64, source string) Device {
	d := Device{
		Name: "RPC", UUID: endpoint, Remote: endpoint, MemoryTotal: total, MemoryFree: free, LinkBps: ethernetBps,
		Source: map[string]string{"link": "assumed: Ethernet of 1 Gbit/s"},
	}
	if total != nil {
		d.Source["memory_total"] = source
	}
	if free != nil {
		d.Source["memory_free"] = source
	}
	return d
}
