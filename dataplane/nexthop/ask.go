package nexthop

import (
	"time"

	"uvs/packet"
)

// The client, for ARP and neighbour discovery, on gateways' segments, where the host has no address to ask from. The kernel's
// timing is kept to: three requests a second apart, to everybody for who isn't known and to the known MAC address for who is.
const (
	askTries = 3
	askRetry = 950 * time.Millisecond // a tick, less its jitter
	// askFresh is how long a neighbour that is merely used is trusted without a new sign of life.
	askFresh = 30 * time.Second
)

// startAsking asks for a neighbour unless a question is out.
func (r *Resolver) startAsking(n *neighbour, now time.Time) {
	if n.tries == 0 && r.attached[n.key.iface].Up {
		r.sendQuestion(n, now)
	}
}

func (r *Resolver) sendQuestion(n *neighbour, now time.Time) {
	n.tries++
	n.nextTry = now.Add(askRetry)
	q := Question{Sender: n.segment.own, Target: n.key.addr}
	if n.status == Ready {
		q.To = n.mac
	}
	r.cfg.Ask(n.key.iface, q)
}

// sign is a sign of life of a station, and what it says of it.
type sign struct {
	iface int
	addr  packet.Addr
	mac   packet.MAC // zero: where it was
	// toUs says that it speaks to us: a stranger is worth knowing then.
	toUs bool
	// timid says that it must not replace another MAC address that is known (an advertisement without override).
	timid bool
	// doubt says that it is a neighbour of the kernel's that seems to have another MAC address.
	doubt bool
}

// HandleARP tells of an ARP packet that came in by an interface: a neighbour on a gateway's segment is known by it. It never
// blocks and does not allocate.
func (r *Resolver) HandleARP(iface int, a *packet.ARP) {
	sender := packet.AddrFrom4(a.Sender())
	if s := r.heardOn(iface, sender); s != nil && a.SenderMAC() != (packet.MAC{}) {
		r.tell(sign{iface: iface, addr: sender, mac: a.SenderMAC(), toUs: packet.AddrFrom4(a.Target()) == s.own})
	} else if s == nil {
		r.doubt(iface, sender, a.SenderMAC())
	}
}

// doubt has the kernel's own neighbour looked after when it speaks from another MAC address than the kernel has of it. The
// kernel overhears requests too, but believes none within a second of its last news (locktime), and the station may not ask
// again: our answer, which the kernel doesn't see, has told it all it wanted.
func (r *Resolver) doubt(iface int, a packet.Addr, mac packet.MAC) {
	hop, status := r.Lookup(a)
	if status == Ready && hop.Iface == iface && hop.Gateway == a && hop.Dst != mac && mac != (packet.MAC{}) {
		r.tell(sign{iface: iface, addr: a, mac: mac, doubt: true})
	}
}

// HandleNDP is HandleARP for a neighbour solicitation or advertisement.
func (r *Resolver) HandleNDP(iface int, n *packet.NDP) {
	if n.Type == packet.ICMP6NeighbourAdvert {
		if s := r.heardOn(iface, n.Target); s != nil {
			r.tell(sign{
				iface: iface, addr: n.Target, mac: n.MAC, toUs: n.Flags&packet.NDPSolicited != 0 && n.Dst == s.own,
				timid: n.Flags&packet.NDPOverride == 0,
			})
		}
		return
	}
	if s := r.heardOn(iface, n.Src); s != nil && n.MAC != (packet.MAC{}) {
		r.tell(sign{iface: iface, addr: n.Src, mac: n.MAC, toUs: n.Target == s.own})
	} else if s == nil {
		r.doubt(iface, n.Src, n.MAC)
	}
}

// heardOn is the gateway's segment that a station belongs to that was heard on an interface, nil if it is the kernel's own
// business.
func (r *Resolver) heardOn(iface int, a packet.Addr) *segment {
	if s := r.view.Load().segmentOn(iface, a); s != nil && s.own != a {
		return s
	}
	return nil
}

func (r *Resolver) tell(s sign) {
	select {
	case r.heard <- s:
	default:
		r.stats.heardFull.Add(1)
	}
}

// hear takes in a sign of life from a gateway's segment. Whoever we know is known better now, by whatever it says; a
// stranger is known only when it speaks to us, lest every station of the segment be remembered.
func (r *Resolver) hear(h sign, now time.Time) {
	if h.mac.IsGroup() || h.mac == r.cfg.Interfaces[h.iface].MAC {
		return
	}
	key := neighbourKey{h.iface, h.addr}
	n := r.neigh[key]
	if h.doubt {
		if n != nil && n.status == Ready && n.mac != h.mac {
			n.doubted = true // until the next tick: the kernel may have believed it, and floods of such are no use
		}
		return
	}
	switch {
	case n == nil && (!h.toUs || h.mac == packet.MAC{} || len(r.neigh) >= 2*r.cfg.MaxAddresses):
		return
	case n == nil:
		n = r.newNeighbour(key)
	case n.status != Ready:
		if h.mac == (packet.MAC{}) {
			return // an advertisement to whom it knows has it
		}
	case h.mac == packet.MAC{}:
		if !h.toUs {
			return // RFC 4861 section 7.2.5: only an answer proves that the way there and back is open
		}
		h.mac = n.mac
	case h.timid && h.mac != n.mac:
		return
	}
	n.tries, n.confirmed = 0, now
	r.set(n, Ready, h.mac, now)
	r.learn(n, now)
}

// tendAsked does what the timers of a gateway's neighbour say.
func (r *Resolver) tendAsked(n *neighbour, kept, turn bool, now time.Time) {
	switch {
	case n.tries >= askTries && !now.Before(n.nextTry):
		n.tries = 0
		r.set(n, Unreachable, n.mac, now)
	case n.tries > 0:
		if !now.Before(n.nextTry) {
			r.sendQuestion(n, now)
		}
	case n.status == Ready:
		age := now.Sub(n.confirmed)
		if kept && turn && age >= tick || age >= askFresh && now.Sub(n.used) < keepTicks*tick {
			r.startAsking(n, now)
		}
	case now.Sub(n.used) < tick, kept && turn:
		r.startAsking(n, now)
	}
}
