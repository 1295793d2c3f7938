package nexthop

import (
	"time"

	"uvs/packet"
)

// The ARP client for gateways' segments, where the host has no address to ask from. The kernel's timing is kept to: three
// requests a second apart, by broadcast for who isn't known and to the known MAC address for who is.
const (
	arpTries = 3
	arpRetry = 950 * time.Millisecond // a tick, less its jitter
	// arpFresh is how long a neighbour that is merely used is trusted without a new sign of life.
	arpFresh = 30 * time.Second
	arpFrame = 60 // shortest Ethernet frame, without checksum
)

// startARP asks for a neighbour unless a question is out.
func (r *Resolver) startARP(n *neighbour, now time.Time) {
	if n.tries == 0 && r.attached[n.key.iface].Up {
		r.sendARP(n, now)
	}
}

func (r *Resolver) sendARP(n *neighbour, now time.Time) {
	n.tries++
	n.nextTry = now.Add(arpRetry)
	to := packet.Broadcast
	if n.status == Ready {
		to = n.mac
	}
	r.cfg.SendARP(n.key.iface, arpRequest(r.cfg.Interfaces[n.key.iface].MAC, n.segment.own, to, n.key.addr))
}

// arpRequest is the frame that asks who has target.
func arpRequest(mac packet.MAC, sender packet.Addr, to packet.MAC, target packet.Addr) []byte {
	b := make([]byte, arpFrame)
	eth := (*packet.Eth)(b)
	eth.SetDst(to)
	eth.SetSrc(mac)
	eth.SetType(packet.EtherARP)
	packet.PutARP(b[packet.EthLen:packet.EthLen+packet.ARPLen], packet.ARPRequest, mac, sender.V4(), packet.MAC{}, target.V4())
	return b
}

// hear takes in an ARP packet from a gateway's segment. Whoever we know is known better now, by whatever it says; a
// stranger is known only when it speaks to us, lest every station of the segment be remembered.
func (r *Resolver) hear(h heardARP, now time.Time) {
	mac, sender := h.arp.SenderMAC(), packet.AddrFrom4(h.arp.Sender())
	if mac.IsGroup() || mac == (packet.MAC{}) || mac == r.cfg.Interfaces[h.iface].MAC {
		return
	}
	key := neighbourKey{h.iface, sender}
	n := r.neigh[key]
	if n == nil {
		s := r.view.Load().segment(sender)
		if s == nil || packet.AddrFrom4(h.arp.Target()) != s.own || len(r.neigh) >= 2*r.cfg.MaxAddresses {
			return
		}
		n = r.newNeighbour(key)
	}
	n.tries, n.confirmed = 0, now
	r.set(n, Ready, mac, now)
	r.learn(n, now)
}

// tendARP does what the timers of a gateway's neighbour say.
func (r *Resolver) tendARP(n *neighbour, kept, turn bool, now time.Time) {
	switch {
	case n.tries >= arpTries && !now.Before(n.nextTry):
		n.tries = 0
		r.set(n, Unreachable, n.mac, now)
	case n.tries > 0:
		if !now.Before(n.nextTry) {
			r.sendARP(n, now)
		}
	case n.status == Ready:
		age := now.Sub(n.confirmed)
		if kept && turn && age >= tick || age >= arpFresh && now.Sub(n.used) < keepTicks*tick {
			r.startARP(n, now)
		}
	case now.Sub(n.used) < tick, kept && turn:
		r.startARP(n, now)
	}
}
