package doctor

import (
	"fmt"

	"uvs/control/api"
	"uvs/dataplane"
	"uvs/dataplane/link"
)

// host looks at the director itself.
func (d *doctor) host() {
	if d.Host == nil {
		return
	}
	for _, h := range d.Host(d.ctx) {
		f := api.Finding{
			Kind: api.FindingHost, What: h.What, Seen: "looked at the director's own host",
			Remedies: []api.Remedy{{On: "director", System: "Linux", Do: []string{h.Remedy}}},
		}
		if h.Offload {
			f.Kind = api.FindingOffload
		}
		d.found(f)
	}
}

// linkStats are the counters of all ports.
func (d *doctor) linkStats() []link.Stats {
	all := make([]link.Stats, len(d.Ports))
	for i := range all {
		all[i] = d.Plane.LinkStats(i)
	}
	return all
}

// drops looks at what overflowed, and what could not be carried, since uvsd's start. before are the counters when the
// diagnosis began.
func (d *doctor) drops(before []link.Stats) {
	for i, s := range d.linkStats() {
		name, b := d.Ports[i].Name, before[i]
		d.overflow(name, "were dropped because the receive ring was full", s.RxRingFull, b.RxRingFull, s.RxFrames,
			"uvsd --workers N     # more threads take them out; --pin keeps each on its CPU")
		d.overflow(name, "were not sent because the interface's queue was full", s.TxNoBuffer, b.TxNoBuffer, s.TxFrames,
			fmt.Sprintf("ip link set %s txqueuelen 10000; tc -s qdisc show dev %s", name, name))
		if s.RxError > 0 {
			d.found(api.Finding{
				Kind: api.FindingOffload, Interface: name,
				What:     fmt.Sprintf("%s took in super-frames that the kernel cannot describe, of SCTP for one: they are lost, as %d were", name, s.RxError),
				Seen:     "counted by the link since uvsd's start",
				Remedies: []api.Remedy{{On: "director", System: "Linux", Do: []string{fmt.Sprintf("ethtool -K %s gro off lro off", name)}}},
			})
		}
	}
	v := d.Plane.Stats().Verdicts
	if n := v[dataplane.DropOffload]; n > 0 {
		d.found(api.Finding{
			Kind: api.FindingOffload,
			What: fmt.Sprintf("%d frames came with unfinished checksums outside of their payload, which cannot be carried", n),
			Seen: "counted by the packet path since uvsd's start: uvsadm status, drops for offload",
			Remedies: []api.Remedy{{On: "station", System: "Linux", Do: []string{
				"ethtool -K eth0 tx off     # in the guest, or at the sender, whose driver asks for it",
			}}},
		})
	}
	if n := v[dataplane.DropSlowPathFull]; n > 0 {
		d.found(api.Finding{
			Kind: api.FindingDrops, What: fmt.Sprintf("%d frames (ARP, neighbour discovery, fragments) found the slow path's queue full", n),
			Seen:     "counted by the packet path since uvsd's start: uvsadm status, drops for slow-path-full",
			Remedies: []api.Remedy{{On: "director", Do: []string{"tcpdump -eni INTERFACE arp or icmp6 or 'ip[6:2] & 0x3fff != 0'     # who sends so many?"}}},
		})
	}
}

// overflow is the finding that frames were lost, n of all and before of them before the diagnosis.
func (d *doctor) overflow(iface, what string, n, before, all uint64, remedy string) {
	if n == 0 {
		return
	}
	d.found(api.Finding{
		Kind: api.FindingDrops, Interface: iface, What: fmt.Sprintf("%d frames on %s %s", n, iface, what),
		Seen:     fmt.Sprintf("counted by the link since uvsd's start, beside %d that passed; %d in the last seconds", all, n-before),
		Remedies: []api.Remedy{{On: "director", System: "Linux", Do: []string{remedy}}},
	})
}
