package guard

import (
	"crypto/sha256"
	"fmt"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"uvs/packet"
)

// cloudDrivers are network drivers of virtual machines whose provider delivers frames to the assigned MAC address alone.
var cloudDrivers = map[string]string{"ena": "Amazon", "gve": "Google", "hv_netvsc": "Azure and Hyper-V"}

// ChooseMode returns the mode that works on an interface, and why, for the log. It goes by the kind of interface and its
// driver: whether a setsockopt for a foreign MAC address succeeds says nothing, on macvlan it does and no frame ever comes.
func ChooseMode(name string) (Mode, string, error) {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return Auto, "", fmt.Errorf("interface %s: %w", name, err)
	}
	switch l := l.(type) {
	case *netlink.Macvlan:
		if l.Mode == netlink.MACVLAN_MODE_PASSTHRU {
			return Virtual, "macvlan in passthru mode takes any MAC address", nil
		}
		return InterfaceMAC, "macvlan delivers frames to its own MAC address alone", nil
	case *netlink.Macvtap:
		return InterfaceMAC, "macvtap delivers frames to its own MAC address alone", nil
	case *netlink.IPVlan, *netlink.IPVtap:
		return InterfaceMAC, "ipvlan shares its parent's MAC address", nil
	}
	if _, err := os.Stat("/sys/class/net/" + name + "/phy80211"); err == nil {
		return InterfaceMAC, "a Wi-Fi station has one MAC address", nil
	}
	if driver := driverOf(name); cloudDrivers[driver] != "" {
		return InterfaceMAC, "driver " + driver + " (" + cloudDrivers[driver] + "): the network knows one MAC address per port", nil
	}
	return Virtual, l.Type() + " takes frames to further MAC addresses", nil
}

// driverOf is the name of an interface's driver, or nothing.
func driverOf(name string) string {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer func() { _ = unix.Close(fd) }()
	info, err := unix.IoctlGetEthtoolDrvinfo(fd, name)
	if err != nil {
		return ""
	}
	return unix.ByteSliceToString(info.Driver[:])
}

// InterfaceAddress is an interface's own MAC address.
func InterfaceAddress(name string) (packet.MAC, error) {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return packet.MAC{}, fmt.Errorf("interface %s: %w", name, err)
	}
	if len(l.Attrs().HardwareAddr) != 6 {
		return packet.MAC{}, fmt.Errorf("interface %s has no Ethernet address", name)
	}
	return packet.MAC(l.Attrs().HardwareAddr), nil
}

// VirtualAddress is the MAC address that uvs has of its own on an interface: locally administered, and the same after every
// start, so that no neighbour has to learn a new one. It comes of the interface's own address, which is unique on its segment,
// and of the host's identity, which tells copies of a virtual machine apart.
func VirtualAddress(name string) (packet.MAC, error) {
	own, err := InterfaceAddress(name)
	if err != nil {
		return packet.MAC{}, err
	}
	id, err := os.ReadFile("/etc/machine-id")
	if err != nil {
		id = nil // no such file on small systems; the interface's address suffices
	}
	h := sha256.Sum256([]byte("uvs virtual mac\x00" + string(own[:]) + "\x00" + strings.TrimSpace(string(id))))
	m := packet.MAC(h[:6])
	m[0] = m[0]&^0x03 | 0x02 // locally administered, not a group
	return m, nil
}
