package guard

import "errors"

// Mode says whose MAC address the virtual addresses have on an interface.
type Mode uint8

// The modes.
const (
	// Auto chooses by the interface: see ChooseMode.
	Auto Mode = iota
	// Virtual gives them a MAC address of uvs's own; the host's stack never looks at frames to it.
	Virtual
	// InterfaceMAC lets them share the interface's address; a Guard keeps the host's stack off their packets.
	InterfaceMAC
)

// ParseMode reads a mode as the command line has it: auto, virtual or interface.
func ParseMode(s string) (Mode, error) {
	switch s {
	case "auto", "":
		return Auto, nil
	case "virtual":
		return Virtual, nil
	case "interface":
		return InterfaceMAC, nil
	}
	return Auto, errors.New("must be auto, virtual or interface")
}

// String is the mode as the command line has it.
func (m Mode) String() string {
	switch m {
	case Virtual:
		return "virtual"
	case InterfaceMAC:
		return "interface"
	default:
		return "auto"
	}
}
