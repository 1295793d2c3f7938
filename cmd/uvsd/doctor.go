package main

import (
	"context"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"

	"uvs/control/api"
	"uvs/control/doctor"
	"uvs/dataplane/guard"
	"uvs/packet"
)

// diagnose asks the network for mistakes around this director.
func (d *daemon) diagnose(ctx context.Context) (*api.Diagnosis, error) {
	cfg := doctor.Config{
		Plane: d.plane, NextHops: d.resolver, Sources: slices.Concat(d.o.probes, d.o.masquerade), Host: d.checkHost, Neighbour: d.neighbour,
	}
	for _, p := range d.ports {
		cfg.Ports = append(cfg.Ports, doctor.Port{Name: p.name, Gateways: p.gateways})
	}
	return doctor.Run(ctx, cfg)
}

// checkHost is the host check, as of now and with all addresses of uvsd's.
func (d *daemon) checkHost(ctx context.Context) []guard.Finding {
	cfg := d.checkConfig()
	cfg.Gateways, cfg.ProbeTime = d.gateways(), -1 // the packet path asks the network
	cfg.VIPs = slices.Concat(d.o.probes, d.o.masquerade)
	for a := range d.plane.Table().VIPs {
		cfg.VIPs = append(cfg.VIPs, a.Netip())
	}
	return guard.Check(ctx, cfg)
}

// neighbour is the address of a family of the station with that MAC address, if the host knows it.
func (d *daemon) neighbour(port int, mac packet.MAC, is4 bool) (netip.Addr, bool) {
	index := d.resolver.Link(port).Index
	if index == 0 {
		return netip.Addr{}, false
	}
	list, err := netlink.NeighList(index, map[bool]int{true: netlink.FAMILY_V4, false: netlink.FAMILY_V6}[is4])
	if err != nil {
		return netip.Addr{}, false // whoever it is stays without an address
	}
	for _, n := range list {
		if a, ok := netip.AddrFromSlice(n.IP); ok && slices.Equal(n.HardwareAddr, mac[:]) && !a.IsLinkLocalUnicast() {
			return a.Unmap(), true
		}
	}
	return netip.Addr{}, false
}
