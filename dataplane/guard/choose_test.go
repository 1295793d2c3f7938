package guard

import (
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"

	"uvs/packet"
)

func TestJudge(t *testing.T) {
	t.Parallel()
	macvlan := &facts{kind: "macvlan"}
	for _, c := range []struct {
		name string
		facts
		mode Mode
		sure bool
	}{
		{"veth", facts{kind: "veth", driver: "veth"}, Virtual, true},
		{"bridge", facts{kind: "bridge", driver: "bridge"}, Virtual, true},
		{"tap", facts{kind: "tuntap", driver: "tun"}, Virtual, true},
		{"macvlan", *macvlan, InterfaceMAC, true},
		{"macvlan in passthru mode", facts{kind: "macvlan", passthru: true}, Virtual, true},
		{"ipvlan", facts{kind: "ipvlan"}, InterfaceMAC, true},
		{"wireless", facts{kind: "device", driver: "iwlwifi", wifi: true}, InterfaceMAC, true},
		{"AWS", facts{kind: "device", driver: "ena"}, InterfaceMAC, true},
		{"hardware", facts{kind: "device", driver: "ixgbe"}, Virtual, false},
		{"bond", facts{kind: "bond", driver: "bonding"}, Virtual, false},
		{"VLAN on a macvlan", facts{kind: "vlan", lower: macvlan}, InterfaceMAC, true},
		{"VLAN on hardware", facts{kind: "vlan", lower: &facts{kind: "device", driver: "ixgbe"}}, Virtual, false},
	} {
		if mode, why, sure := c.judge(); mode != c.mode || sure != c.sure || why == "" {
			t.Errorf("%s: judge() = %v, %q, %v, want %v, %v", c.name, mode, why, sure, c.mode, c.sure)
		}
	}
}

func TestVirtualMACDependsOnInterfaceMachineAndInstance(t *testing.T) {
	t.Parallel()
	a := virtualMAC(net.HardwareAddr{1, 2, 3, 4, 5, 6}, []byte("machine"), "")
	if a[0] != 2 {
		t.Errorf("%v is not locally administered and unicast", a)
	}
	if b := virtualMAC(net.HardwareAddr{1, 2, 3, 4, 5, 6}, []byte("machine"), ""); a != b {
		t.Errorf("%v, then %v for the same interface", a, b)
	}
	seen := map[packet.MAC]bool{a: true}
	for _, b := range []packet.MAC{
		virtualMAC(net.HardwareAddr{1, 2, 3, 4, 5, 7}, []byte("machine"), ""),
		virtualMAC(net.HardwareAddr{1, 2, 3, 4, 5, 6}, []byte("another"), ""),
		virtualMAC(net.HardwareAddr{1, 2, 3, 4, 5, 6}, []byte("machine"), "second"),
	} {
		if seen[b] {
			t.Errorf("%v is not unique", b)
		}
		seen[b] = true
	}
}

func TestParseMode(t *testing.T) {
	t.Parallel()
	for _, m := range []Mode{Auto, Virtual, InterfaceMAC} {
		if got, err := ParseMode(m.String()); got != m || err != nil {
			t.Errorf("ParseMode(%q) = %v, %v, want %v", m.String(), got, err, m)
		}
	}
	if _, err := ParseMode("vmac"); err == nil {
		t.Error(`ParseMode("vmac"): no error`)
	}
}

// TestProbeTellsWhetherASecondMACIsServed asks a neighbour over a veth, which serves any, and over a macvlan, which
// serves its own alone.
func TestProbeTellsWhetherASecondMACIsServed(t *testing.T) {
	t.Parallel()
	d, other := newSpace(t), newSpace(t)
	wire(d, "eth0", other, "e0")
	other.addr("e0", "192.0.2.254/24")
	d.must(d.LinkAdd(&netlink.Macvlan{
		LinkAttrs: netlink.LinkAttrs{Name: "mv0", ParentIndex: d.link("eth0").Attrs().Index}, Mode: netlink.MACVLAN_MODE_BRIDGE,
	}))
	d.up("mv0")
	neighbour := []netip.Addr{netip.MustParseAddr("192.0.2.254")}
	nobody := []netip.Addr{netip.MustParseAddr("192.0.2.7")}
	for _, c := range []struct {
		iface        string
		targets      []netip.Addr
		own, virtual bool
	}{
		{"eth0", neighbour, true, true},
		{"mv0", neighbour, true, false},
		{"eth0", nobody, false, false},
	} {
		d.in(func() error {
			own, virtual, err := probeMAC(t.Context(), c.iface, packet.MAC{2, 0x75, 1, 2, 3, 4}, c.targets)
			if err != nil {
				return err
			}
			if own && !virtual != (c.own && !c.virtual) || virtual != c.virtual {
				t.Errorf("%s asking %v: own %v, virtual %v, want %v, %v", c.iface, c.targets, own, virtual, c.own, c.virtual)
			}
			return nil
		})
	}
	d.in(func() error {
		for iface, want := range map[string]Mode{"eth0": Virtual, "mv0": InterfaceMAC} {
			mac, err := VirtualMAC(iface, "")
			if err != nil {
				return err
			}
			got, why, err := ChooseMode(t.Context(), iface, mac, nil)
			if got != want || why == "" || err != nil {
				t.Errorf("ChooseMode(%s) = %v, %q, %v, want %v", iface, got, why, err, want)
			}
		}
		if _, _, err := ChooseMode(t.Context(), "eth9", packet.MAC{}, nil); err == nil {
			t.Error("ChooseMode of an interface that doesn't exist: no error")
		}
		return nil
	})
}
