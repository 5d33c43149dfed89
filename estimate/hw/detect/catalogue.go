package detect

import "weigh/estimate/hw"

// fill adds what the catalogue knows of a device of memory total (0: unknown)
// that its driver did not say.
func fill(d *hw.Device, total uint64) {
	c, ok := hw.Identify(d.Name, total)
	if !ok {
		return
	}
	set := func(field string, missing bool, known bool, take func()) {
		if missing && known {
			take()
			d.Source[field] = "catalogue"
		}
	}
	set("compute_capability", !d.ComputeCapability.Known(), c.ComputeCapability.Known(), func() { d.ComputeCapability = c.ComputeCapability })
	set("compute_capability", d.Arch == "", c.Arch != "", func() { d.Arch = c.Arch })
	set("multiprocessors", d.SMs == 0, c.Units > 0, func() { d.SMs = c.Units })
	set("bandwidth_bytes_per_second", d.BandwidthBps == 0, c.BandwidthBps > 0, func() { d.BandwidthBps = c.BandwidthBps })
	set("fp16_flops", d.FP16Flops == 0, c.FP16Flops > 0, func() { d.FP16Flops = c.FP16Flops })
	set("fp32_flops", d.FP32Flops == 0, c.FP32Flops > 0, func() { d.FP32Flops = c.FP32Flops })
	set("pcie", d.PCIe == hw.PCIe{}, c.PCIe != hw.PCIe{}, func() { d.PCIe = c.PCIe })
}
