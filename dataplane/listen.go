package dataplane

import (
	"math/rand/v2"
	"slices"
	"time"

	"go.uber.org/zap"

	"uvs/forward"
	"uvs/packet"
)

// To hear solicitations for an IPv6 address one must listen to its solicited-node group: the interface must let the
// group's frames in, and a snooping switch must be told by MLD reports that somebody wants them, again whenever it asks.
// Each group is joined by itself, on the slow path's socket: what an interface lets in is one list for all its sockets, and
// to let in all groups would bring a segment's video streams as well.

const (
	mldTimes    = 2           // a change is reported so often (RFC 3810 section 9.1, robustness variable),
	mldInterval = time.Second // so far apart (section 9.11, unsolicited report interval)
	mldDelayMax = 20 * time.Second
)

// listener is a port's membership in groups.
type listener struct {
	groups  []packet.Addr // in order
	changes []groupChange
	asked   groupQuery
	failed  bool // a join was refused, and that was said
}

// groupChange is groups joined or left, to be reported.
type groupChange struct {
	kind   uint8 // packet.MLDJoins or MLDLeaves
	groups []packet.Addr
	left   int // reports
	at     int64
}

// groupQuery is what a query asked and hasn't been answered yet.
type groupQuery struct {
	at       int64 // 0: nothing
	all      bool
	some     []packet.Addr
	version1 bool
}

// followGroups makes the groups listened to those of the addresses of ours: of VIPs on every port, as their solicitations
// are answered there.
func (s *slowPath) followGroups() {
	var common []packet.Addr
	s.everywhere(func(a packet.Addr) bool {
		if !a.Is4() {
			common = append(common, packet.SolicitedNode(a))
		}
		return true
	})
	for i := range s.groups {
		if s.ports[i].host {
			continue // nobody there solicits
		}
		want := slices.Clone(common)
		for _, g := range s.ports[i].gateways {
			if !g.addr.Is4() {
				want = append(want, packet.SolicitedNode(g.addr))
			}
		}
		slices.SortFunc(want, packet.Addr.Compare)
		want = slices.Compact(want)
		if len(want) == 0 && len(s.groups[i].groups) == 0 {
			continue
		}
		l := &s.groups[i]
		had := l.groups
		l.groups = want
		if (len(had) == 0) != (len(want) == 0) {
			s.membership(i, packet.AllNodes, len(want) > 0) // queries come to it, and others' advertisements
		}
		s.change(i, packet.MLDJoins, without(want, had))
		s.change(i, packet.MLDLeaves, without(had, want))
	}
}

// without is what list has and others has not; both are in order.
func without(list, others []packet.Addr) (rest []packet.Addr) {
	for _, a := range list {
		if _, found := slices.BinarySearchFunc(others, a, packet.Addr.Compare); !found {
			rest = append(rest, a)
		}
	}
	return rest
}

// change joins or leaves groups on a port.
func (s *slowPath) change(port int, kind uint8, groups []packet.Addr) {
	if len(groups) == 0 {
		return
	}
	l := &s.groups[port]
	for i := range l.changes { // what was said of them before holds no longer
		c := &l.changes[i]
		c.groups = without(c.groups, groups)
	}
	l.changes = append(l.changes, groupChange{kind, groups, mldTimes, s.now})
	for _, g := range groups {
		s.membership(port, g, kind == packet.MLDJoins)
	}
}

// membership has the interface let a group's frames in, or no longer. A link without such a list lets in everything.
func (s *slowPath) membership(port int, group packet.Addr, join bool) {
	l, ok := s.tx[port].(interface {
		JoinMulticast(mac [6]byte) error
		LeaveMulticast(mac [6]byte) error
	})
	if !ok {
		return
	}
	mac := packet.GroupMAC(group)
	if !join {
		_ = l.LeaveMulticast(mac) // it was never joined, or went with the interface
		return
	}
	if err := l.JoinMulticast(mac); err != nil && !s.groups[port].failed {
		s.groups[port].failed = true
		s.plane.cfg.Log.Warn("the interface does not let in the frames of a solicited-node group: IPv6 neighbours may not find the address",
			zap.String("interface", s.plane.cfg.Ports[port].Name), zap.Stringer("group", group), zap.Error(err))
	}
}

// rejoin joins a port's groups on the link that replaced the one they were joined on.
func (s *slowPath) rejoin(port int) {
	l := &s.groups[port]
	l.failed = false
	if len(l.groups) > 0 {
		s.membership(port, packet.AllNodes, true)
	}
	for _, g := range l.groups {
		s.membership(port, g, true)
	}
}

// again reports all groups as if they were new.
func (l *listener) again(now int64) {
	if l.changes = nil; len(l.groups) > 0 {
		l.changes = []groupChange{{packet.MLDJoins, l.groups, mldTimes, now}}
	}
}

// listenerQuery notes what a querier, a router or switch, wants to know.
func (s *slowPath) listenerQuery(q *port, p *packet.Packet) Verdict {
	var m packet.MLDQuery
	if !packet.ParseMLDQuery(p, &m) {
		return DropNDP
	}
	l := &s.groups[q.index]
	_, joined := slices.BinarySearchFunc(l.groups, m.Group, packet.Addr.Compare)
	if len(l.groups) == 0 || !m.Group.IsZero() && !joined {
		return PassNDP
	}
	delay := min(time.Duration(m.MaxDelay)*time.Millisecond, mldDelayMax)
	l.asked.add(&m, s.now+rand.N(int64(delay)+1))
	return AnsweredNDP
}

// add takes in a query that is to be answered by at; an earlier one's answer waits no longer for it.
func (g *groupQuery) add(m *packet.MLDQuery, at int64) {
	if g.at == 0 || at < g.at {
		g.at = at
	}
	g.version1 = g.version1 || m.Version1
	if m.Group.IsZero() {
		g.all = true
	} else if !slices.Contains(g.some, m.Group) {
		g.some = append(g.some, m.Group)
	}
}

// listenersDue sends the reports whose time has come. The caller flushes.
func (s *slowPath) listenersDue() {
	for i := range s.groups {
		l := &s.groups[i]
		for j := range l.changes {
			if c := &l.changes[j]; c.at <= s.now {
				s.report(i, c.kind, c.groups, false)
				c.left--
				c.at = s.now + int64(mldInterval)
			}
		}
		l.changes = slices.DeleteFunc(l.changes, func(c groupChange) bool { return c.left == 0 })
		if a := &l.asked; a.at != 0 && a.at <= s.now {
			groups := a.some
			if a.all {
				groups = l.groups
			}
			s.report(i, packet.MLDListens, groups, a.version1)
			*a = groupQuery{}
		}
	}
}

// report sends reports of groups out of a port.
func (s *slowPath) report(port int, kind uint8, groups []packet.Addr, version1 bool) {
	q, tx := &s.ports[port], s.tx[port]
	if version1 {
		for _, g := range groups {
			tx.Send(forward.MLDReport1(s.answer(), q.mac, g), nil)
		}
		return
	}
	for some := range slices.Chunk(groups, forward.MLDGroups) {
		tx.Send(forward.MLDReport(s.answer(), q.mac, kind, some), nil)
	}
}

// leave tells switches that uvs listens no more, as it ends: what clients still send to the groups needs to go nowhere. Who has the
// addresses next joins by itself. One report may be lost; then the switches find out by their own queries.
func (s *slowPath) leave() {
	s.mu.Lock()
	for i := range s.groups {
		s.report(i, packet.MLDLeaves, s.groups[i].groups, false)
	}
	s.mu.Unlock()
	s.flush()
}
