// Package guard keeps the host's own IP stack off the packets that are uvs's business, and finds what on the host would
// break its service. AF_PACKET hands uvs a copy of each frame: without a guard the kernel sees it as well and may answer
// with a reset or an ICMP error, or forward a duplicate.
package guard

import "errors"

// RouteProtocol is the rtnetlink protocol number of everything that uvs installs in the host's route tables: how
// leftovers of a crashed run are told from the operator's routes.
const RouteProtocol = 137

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
