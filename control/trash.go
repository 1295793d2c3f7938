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
	return trash{servers: map[trashKey]*trashed{}, of: map[service.Key]int{}}
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

func (t *trash) drop(k trashKey) {
	delete(t.servers, k)
	if t.of[k.service]--; t.of[k.service] == 0 {
		delete(t.of, k.service)
	}
}

// emptyTrashLocked forgets the servers whose time has come.
func (d *Director) emptyTrashLocked(now time.Time) {
	for k, s := range d.trash.servers {
		switch {
		case s.rs.Refs() > 0:
		case s.idle.IsZero():
			s.idle = now
		case now.Sub(s.idle) >= trashIdle:
			d.trash.drop(k)
			d.cfg.Servers.Remove(s.rs)
			if d.trash.of[k.service] == 0 {
				d.slots.release(k.service)
			}
		}
	}
}
