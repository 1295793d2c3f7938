package guard

import (
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/vishvananda/netlink"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"uvs/packet"
)

// A bridge floods frames to an address that it hasn't learned to all its ports. One of uvs's own on the bridge's interface
// it never learns, so it is told: `bridge fdb add MAC dev BRIDGE self local extern_learn`. The last word marks the entry as
// a program's, which is how one left behind is recognised.

// bridgeEntry is a MAC address of uvs on an interface that may be a bridge.
type bridgeEntry struct {
	iface string
	mac   packet.MAC
}

// lockMACs says that this instance uses its MAC addresses.
func (g *Guard) lockMACs() error {
	for _, e := range g.fdb {
		l, err := takeMACLock(e.iface, e.mac)
		if errors.Is(err, errLocked) {
			return fmt.Errorf("MAC address %v on %s is in use by another uvsd on this host: give each a name of its own", e.mac, e.iface)
		}
		if err != nil {
			return err
		}
		g.macs = append(g.macs, l)
	}
	return nil
}

// bridge returns the bridge of that name, nil if there is no such interface or it isn't one.
func (g *Guard) bridge(name string) (netlink.Link, error) {
	l, err := g.nl.LinkByName(name)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil, nil // it is no guard's business to complain
	}
	if err != nil {
		return nil, fmt.Errorf("look at %s: %w", name, err)
	}
	if l.Type() != "bridge" {
		return nil, nil
	}
	return l, nil
}

// told are the addresses that programs have told a bridge to be its own.
func (g *Guard) told(bridge netlink.Link) ([]packet.MAC, error) {
	list, err := g.nl.NeighList(bridge.Attrs().Index, unix.AF_BRIDGE)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list the forwarding entries of %s: %w", bridge.Attrs().Name, err)
	}
	var macs []packet.MAC
	for _, n := range list {
		if n.LinkIndex == bridge.Attrs().Index && n.State&netlink.NUD_PERMANENT != 0 && n.Flags&netlink.NTF_EXT_LEARNED != 0 &&
			len(n.HardwareAddr) == len(packet.MAC{}) && n.Vlan == 0 {
			macs = append(macs, packet.MAC(n.HardwareAddr))
		}
	}
	return macs, nil
}

func forwardingEntry(bridge netlink.Link, mac packet.MAC) *netlink.Neigh {
	return &netlink.Neigh{
		LinkIndex: bridge.Attrs().Index, Family: unix.AF_BRIDGE, State: netlink.NUD_PERMANENT,
		Flags: netlink.NTF_SELF | netlink.NTF_EXT_LEARNED, HardwareAddr: net.HardwareAddr(mac[:]),
	}
}

// updateBridges makes want what the attached bridges have been told by this instance.
func (g *Guard) updateBridges(want []bridgeEntry) error {
	var errs []error
	for _, in := range g.cfg.Interfaces {
		if len(in.MACs) == 0 || in.Mode != Virtual {
			continue
		}
		br, err := g.bridge(in.Name)
		if err != nil {
			errs = append(errs, err)
		}
		if br == nil {
			continue
		}
		have, err := g.told(br)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, mac := range in.MACs {
			wanted := slices.Contains(want, bridgeEntry{in.Name, mac})
			switch there := slices.Contains(have, mac); {
			case wanted && !there:
				err = g.nl.NeighSet(forwardingEntry(br, mac))
			case !wanted && there:
				err = g.nl.NeighDel(forwardingEntry(br, mac))
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("forwarding entry of %s for %v: %w", in.Name, mac, err))
			}
		}
	}
	return errors.Join(errs...)
}

// removeBridgeLeftovers takes addresses off the attached bridges that no living instance has there.
func (g *Guard) removeBridgeLeftovers() error {
	for _, in := range g.cfg.Interfaces {
		br, err := g.bridge(in.Name)
		if err != nil {
			return err
		}
		if br == nil {
			continue
		}
		have, err := g.told(br)
		if err != nil {
			return err
		}
		for _, mac := range have {
			l, err := takeMACLock(in.Name, mac)
			l.release()
			if err != nil {
				continue // ours, or another living instance's
			}
			g.log.Info("removing a bridge's forwarding entry that a crashed uvsd left", zap.String("bridge", in.Name), zap.Stringer("mac", mac))
			if err := g.nl.NeighDel(forwardingEntry(br, mac)); err != nil {
				return fmt.Errorf("forwarding entry of %s for %v: %w", in.Name, mac, err)
			}
		}
	}
	return nil
}
