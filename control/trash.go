package control

import (
	"net/netip"
	"time"

	"uvs/service"
)

const (
	trashInterval = time.Minute
	trashIdle     = 2 * time.Minute
)

// trash is the removed servers that may come back: as in ip_vs_ctl.c, a server is looked at every minute and forgotten
// two minutes after the first look that found no connection on it. One that is added again to a service of the same
// protocol, address and port (or mark) before that is the same server still.
type trash struct {
	servers map[trashKey]*trashed
	of      map[service.Key]int // how many of a service there are
	// nameless are those that don't come back: sorry servers. They have no owner.
	nameless map[*service.RealServer]*trashed
}

type trashKey struct {
	service service.Key
	addr    netip.AddrPort
}

type trashed struct {
	rs    *service.RealServer
	owner *virtual
	idle  time.Time // of the first look that found it without connections
}

func newTrash() trash {
	return trash{servers: map[trashKey]*trashed{}, of: map[service.Key]int{}, nameless: map[*service.RealServer]*trashed{}}
}

func (t *trash) put(v *virtual, rs *service.RealServer) {
	t.servers[trashKey{v.key, rs.Addr}] = &trashed{rs: rs, owner: v}
	t.of[v.key]++
}

// take returns the server and the service it was removed from, or nil.
func (t *trash) take(k service.Key, addr netip.AddrPort) (*service.RealServer, *virtual) {
	s := t.servers[trashKey{k, addr}]
	if s == nil {
		return nil, nil
	}
	t.drop(trashKey{k, addr})
	return s.rs, s.owner
}

// putNameless takes in a server that doesn't come back, however many have its address.
func (t *trash) putNameless(k service.Key, rs *service.RealServer) {
	t.nameless[rs] = &trashed{rs: rs}
	t.of[k]++
}

func (t *trash) drop(k trashKey) {
	delete(t.servers, k)
	t.lessOf(k.service)
}

func (t *trash) lessOf(k service.Key) {
	if t.of[k]--; t.of[k] == 0 {
		delete(t.of, k)
	}
}

// emptyTrashLocked forgets the servers whose time has come.
func (d *Director) emptyTrashLocked(now time.Time) {
	for k, s := range d.trash.servers {
		if s.forgotten(now) {
			d.trash.drop(k)
			d.forgetServerLocked(s.rs)
		}
	}
	for rs, s := range d.trash.nameless {
		if s.forgotten(now) {
			delete(d.trash.nameless, rs)
			d.trash.lessOf(rs.Service)
			d.forgetServerLocked(rs)
		}
	}
}

// forgotten says that a server's time has come.
func (s *trashed) forgotten(now time.Time) bool {
	switch {
	case s.rs.Refs() > 0:
	case s.idle.IsZero():
		s.idle = now
	default:
		return now.Sub(s.idle) >= trashIdle
	}
	return false
}

func (d *Director) forgetServerLocked(rs *service.RealServer) {
	rs.SetAvailable(false)
	d.cfg.Servers.Remove(rs)
	if d.trash.of[rs.Service] == 0 {
		d.slots.release(rs.Service)
	}
}
