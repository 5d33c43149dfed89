package detect

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"weigh/estimate/hw"
)

// A drmCard is one GPU as the kernel's display drivers show it.
type drmCard struct {
	card   string // "sys/class/drm/card0"
	dir    string // its device
	vendor string // "0x1002"
	device string // "0x744c"
	driver string // "amdgpu"
	slot   string // "0000:03:00.0"
}

// drmCards lists the GPUs of one vendor in the order of their slots on the bus.
func drmCards(root fs.FS, vendor string) []drmCard {
	entries, _ := fs.ReadDir(root, "sys/class/drm")
	var cards []drmCard
	for _, e := range entries {
		number, ok := strings.CutPrefix(e.Name(), "card")
		if _, err := strconv.Atoi(number); !ok || err != nil {
			continue // a connector, "card0-DP-1", or a render node
		}
		c := drmCard{card: "sys/class/drm/" + e.Name()}
		c.dir = c.card + "/device"
		c.vendor, _ = text(root, c.dir+"/vendor")
		c.device, _ = text(root, c.dir+"/device")
		if c.vendor != vendor {
			continue
		}
		uevent, _ := text(root, c.dir+"/uevent")
		for line := range strings.SplitSeq(uevent, "\n") {
			switch k, v, _ := strings.Cut(line, "="); k {
			case "DRIVER":
				c.driver = v
			case "PCI_SLOT_NAME":
				c.slot = v
			}
		}
		cards = append(cards, c)
	}
	slices.SortFunc(cards, func(a, b drmCard) int { return strings.Compare(a.slot+a.card, b.slot+b.card) })
	return cards
}

// displays reports whether a screen is connected to the card and lit.
func (c drmCard) displays(root fs.FS) bool {
	entries, _ := fs.ReadDir(root, "sys/class/drm")
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), path.Base(c.card)+"-") {
			if s, _ := text(root, "sys/class/drm/"+e.Name()+"/enabled"); s == "enabled" {
				return true
			}
		}
	}
	return false
}

// link returns the PCIe link that the slot and the card can have: the highest
// generation, and the lanes in use.
func (c drmCard) link(root fs.FS) hw.PCIe {
	speed, _ := text(root, c.dir+"/max_link_speed")
	width, err := number(root, c.dir+"/current_link_width")
	if err != nil {
		width, err = number(root, c.dir+"/max_link_width")
	}
	gts, _, _ := strings.Cut(speed, " ")
	gen := slices.Index([]string{"", "2.5", "5.0", "8.0", "16.0", "32.0", "64.0"}, gts)
	if gen < 1 || err != nil || width < 1 || width > 32 {
		return hw.PCIe{}
	}
	return hw.PCIe{Gen: gen, Width: int(width)}
}

// pciName returns the name that the system's list of PCI devices has for one,
// and "" where there is none. Of a chip's name and its brand in brackets, as in
// "Battlemage G21 [Intel Arc B580]", it is the brand.
func pciName(root fs.FS, vendor, device string) string {
	vendor, device = strings.TrimPrefix(vendor, "0x"), strings.TrimPrefix(device, "0x")
	for _, name := range []string{"usr/share/hwdata/pci.ids", "usr/share/misc/pci.ids"} {
		f, err := root.Open(name)
		if err != nil {
			continue
		}
		defer f.Close()
		inVendor := false
		lines := bufio.NewScanner(io.LimitReader(f, maxText))
		for lines.Scan() {
			line := lines.Text()
			switch {
			case line == "" || line[0] == '#':
			case line[0] != '\t':
				inVendor = strings.HasPrefix(line, vendor+"  ")
			case inVendor && strings.HasPrefix(line, "\t"+device+"  "):
				full := line[len(device)+3:]
				if _, brand, ok := strings.Cut(full, "["); ok {
					return strings.TrimSuffix(brand, "]")
				}
				return full
			}
		}
	}
	return ""
}

// processName returns the name of a process of this machine.
func processName(root fs.FS, pid int) string {
	s, _ := text(root, fmt.Sprintf("proc/%d/comm", pid))
	return s
}
