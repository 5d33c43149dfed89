package detect

import (
	"encoding/binary"

	"golang.org/x/sys/windows/registry"
)

// displayClass is the registry's class of display adapters.
const displayClass = `SYSTEM\CurrentControlSet\Control\Class\{4d36e968-e325-11ce-bfc1-08002be10318}`

// adapters lists the display adapters whose driver is installed.
func adapters() ([]adapter, error) {
	class, err := registry.OpenKey(registry.LOCAL_MACHINE, displayClass, registry.ENUMERATE_SUB_KEYS)
	if err != nil {
		return nil, err
	}
	defer class.Close()
	names, err := class.ReadSubKeyNames(-1)
	if err != nil {
		return nil, err
	}
	var list []adapter
	for _, name := range names {
		k, err := registry.OpenKey(class, name, registry.QUERY_VALUE)
		if err != nil {
			continue // "Properties" is for the system alone
		}
		var a adapter
		a.Name, _, _ = k.GetStringValue("DriverDesc")
		a.ID, _, _ = k.GetStringValue("MatchingDeviceId")
		a.Driver, _, _ = k.GetStringValue("DriverVersion")
		// Drivers write the size as a number or as its eight bytes.
		const size = "HardwareInformation.qwMemorySize"
		if n, _, err := k.GetIntegerValue(size); err == nil {
			a.Memory = n
		} else if b, _, err := k.GetBinaryValue(size); err == nil && len(b) == 8 {
			a.Memory = binary.LittleEndian.Uint64(b)
		}
		k.Close()
		if a.Name != "" {
			list = append(list, a)
		}
	}
	return list, nil
}
