package main

import (
	"errors"
	"fmt"
	"net/netip"

	"go.uber.org/zap"

	"uvs/control/api"
	"uvs/dataplane/guard"
	"uvs/packet"
	"uvs/service"
)

// preparePorts looks at the interfaces and decides whose MAC address they use.
func (d *daemon) preparePorts() error {
	if err := d.report(guard.CheckCapabilities()); err != nil {
		return err
	}
	for _, name := range d.o.interfaces {
		p := &port{name: name, mode: d.o.mac}
		for _, g := range d.o.gateways {
			if g.iface == name {
				p.gateways = append(p.gateways, g.prefix)
			}
		}
		if p.mode == guard.Auto {
			mode, why, err := guard.ChooseMode(name)
			if err != nil {
				return err
			}
			p.mode = mode
			d.log.Info("chose the MAC mode", zap.String("interface", name), zap.Stringer("mode", mode), zap.String("why", why))
		}
		address := guard.VirtualAddress
		if p.mode == guard.InterfaceMAC {
			address = guard.InterfaceAddress
		}
		var err error
		if p.mac, err = address(name); err != nil {
			return err
		}
		d.ports = append(d.ports, p)
	}
	return d.report(guard.CheckInterfaces(d.guarded(), d.gateways()))
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
	want := guard.Desired{Gateways: d.gateways()}
	for a := range t.VIPs {
		want.VIPs = append(want.VIPs, a.Netip())
	}
	for _, vs := range t.Services {
		for _, rs := range vs.Servers {
			if rs.Method() == service.Masq {
				want.NATServers = append(want.NATServers, guard.Server{Proto: uint8(vs.Proto), Addr: rs.Addr})
			}
		}
	}
	return want
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

// checkVIPs looks at virtual addresses that weren't there before.
func (d *daemon) checkVIPs(t *service.Table) {
	checked := make(map[netip.Addr]bool)
	for a := range t.VIPs {
		addr := a.Netip()
		checked[addr] = true
		if !d.checked[addr] {
			for _, f := range guard.CheckVIP(addr) {
				d.warn(f)
			}
		}
	}
	d.checked = checked
}

// canForward refuses servers that the packet path cannot serve yet.
func canForward(_ service.Key, rip netip.Addr, c *api.ServerConfig) error {
	if c.Method == api.Local {
		return fmt.Errorf("%v is an address of the director itself: serving it from here is not supported by this version", rip)
	}
	return nil
}
