package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/zap"

	"uvs/control/api"
	"uvs/dataplane/guard"
	"uvs/packet"
	"uvs/service"
)

// chooseTime is how long the choice of a MAC mode may take for one interface.
const chooseTime = 3 * time.Second

// preparePorts looks at the interfaces and decides whose MAC address they use.
func (d *daemon) preparePorts() error {
	for _, name := range d.o.interfaces {
		p := &port{name: name, mode: d.o.modeOf(name)}
		for _, g := range d.o.gateways {
			if g.iface == name {
				p.gateways = append(p.gateways, g.prefix)
			}
		}
		own, err := ownMAC(name)
		if err != nil {
			return err
		}
		virtual, err := guard.VirtualMAC(name, "")
		if err != nil {
			return err
		}
		if p.mode == guard.Auto {
			ctx, cancel := context.WithTimeout(context.Background(), chooseTime)
			mode, why, err := guard.ChooseMode(ctx, name, virtual, nil)
			cancel()
			if err != nil {
				return err
			}
			p.mode, p.why = mode, why
		}
		if p.mac = virtual; p.mode == guard.InterfaceMAC {
			p.mac = own
		}
		d.ports = append(d.ports, p)
	}
	if err := d.report(guard.CheckHost(d.checkConfig())); err != nil {
		return err
	}
	cfg := d.checkConfig()
	cfg.Gateways, cfg.ProbeTime = d.gateways(), -1
	return d.report(guard.CheckAddresses(context.Background(), cfg))
}

// ownMAC is an interface's own MAC address.
func ownMAC(name string) (packet.MAC, error) {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return packet.MAC{}, fmt.Errorf("--interface %s: %w; ip link lists the interfaces", name, err)
	}
	if len(l.Attrs().HardwareAddr) != len(packet.MAC{}) {
		return packet.MAC{}, fmt.Errorf("--interface %s is not Ethernet: it has no MAC address", name)
	}
	return packet.MAC(l.Attrs().HardwareAddr), nil
}

// checkConfig says what the host check needs to know of the ports.
func (d *daemon) checkConfig() guard.CheckConfig {
	var cfg guard.CheckConfig
	for i, p := range d.ports {
		info := p.info()
		cfg.Interfaces = append(cfg.Interfaces, guard.CheckInterface{
			Name: p.name, Mode: p.mode, MAC: d.mac(i), NoVnet: info.Name != "" && !info.Vnet,
		})
	}
	return cfg
}

// guarded are the ports as the guard knows them.
func (d *daemon) guarded() []guard.Interface {
	var list []guard.Interface
	for _, p := range d.ports {
		list = append(list, guard.Interface{Name: p.name, Mode: p.mode, MACs: []packet.MAC{p.mac}})
	}
	return list
}

// gateways are the gateway addresses as the guard knows them. What comes through them is all uvs's, whatever it does with it.
func (d *daemon) gateways() []guard.Gateway {
	var list []guard.Gateway
	for _, p := range d.ports {
		for _, g := range p.gateways {
			list = append(list, guard.Gateway{Prefix: g, Iface: p.name, All: true})
		}
	}
	return list
}

// unwanted is what the host's stack has to be kept off for a table.
func (d *daemon) unwanted(t *service.Table) guard.Desired {
	want := guard.Desired{Gateways: d.gateways(), FromVIPs: d.sources.shielded.Load()}
	want.VIPs = append(append(want.VIPs, d.o.masquerade...), d.o.probes...)
	for a := range t.VIPs {
		want.VIPs = append(want.VIPs, a.Netip())
	}
	want.NATServers = natServers(t.Services)
	return want
}

// unwantedOf is the part of it that services alone ask for.
func unwantedOf(services []*service.VirtualService) guard.Desired {
	want := guard.Desired{NATServers: natServers(services)}
	for _, vs := range services {
		if vs.Mark == 0 {
			want.VIPs = append(want.VIPs, vs.Addr.Addr())
		}
	}
	return want
}

func natServers(services []*service.VirtualService) (list []guard.Server) {
	for _, vs := range services {
		for _, rs := range vs.Servers {
			if rs.Method() == service.Masq {
				list = append(list, guard.Server{Proto: uint8(vs.Proto), Addr: rs.Addr})
			}
		}
	}
	return list
}

// report logs what the host check found and keeps it for the status; it returns an error if uvsd cannot serve so.
func (d *daemon) report(found []guard.Finding) error {
	var refused []error
	for _, f := range found {
		if f.Severity == guard.Refuse && !d.o.ignoreChecks {
			refused = append(refused, errors.New(f.String()))
			continue
		}
		d.warn(f)
	}
	return errors.Join(refused...)
}

// warn logs a finding, once, and keeps it for the status.
func (d *daemon) warn(f guard.Finding) {
	d.mu.Lock()
	defer d.mu.Unlock()
	w := api.Warning{Text: f.What, Remedy: f.Remedy}
	for _, known := range d.warnings {
		if known == w {
			return
		}
	}
	d.warnings = append(d.warnings, w)
	d.log.Warn(f.What, zap.String("remedy", f.Remedy))
}

// checkAddresses looks at each virtual address when it appears, and at the gateway addresses: the host must not have them.
func (d *daemon) checkAddresses(ctx context.Context) error {
	checked := make(map[netip.Addr]bool)
	gateways, probes := d.gateways(), d.o.probes
	for {
		cfg := d.checkConfig()
		cfg.Gateways, gateways = gateways, nil
		cfg.VIPs, probes = slices.Clone(probes), nil
		cfg.ProbeTime = -1 // the packet path asks the network, under the addresses' own MAC: see conflict
		now := make(map[netip.Addr]bool)
		for a := range d.plane.Table().VIPs {
			addr := a.Netip()
			if now[addr] = true; !checked[addr] {
				cfg.VIPs = append(cfg.VIPs, addr)
			}
		}
		if checked = now; len(cfg.VIPs)+len(cfg.Gateways) > 0 {
			for _, f := range guard.CheckAddresses(ctx, cfg) {
				d.warn(f)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-d.appeared:
		}
	}
}

// conflict keeps for the status that another station answers for an address of ours.
func (d *daemon) conflict(port int, a netip.Addr, station packet.MAC) {
	if !a.Is4() {
		d.warn(guard.Finding{
			What:   fmt.Sprintf("%v answers neighbour discovery on %s for %v, which is uvsd's: clients may go there", station, d.ports[port].name, a),
			Remedy: "remove the address there; a real server has it on lo, with the prefix length 128: ip addr add " + a.String() + "/128 dev lo",
		})
		return
	}
	d.warn(guard.Finding{
		What:   fmt.Sprintf("%v answers ARP on %s for %v, which is uvsd's: clients may go there", station, d.ports[port].name, a),
		Remedy: "remove the address there; on a real server: sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2",
	})
}

// interfaceMTU is the MTU of an interface of the host, 0 if there is none of that name.
func interfaceMTU(name string) int {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return 0
	}
	return l.Attrs().MTU
}
