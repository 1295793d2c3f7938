package control

import (
	"slices"

	"uvs/service"
)

// serverList is a service's list of real servers, the latest first. It grows at its front in constant time without
// touching what was read from it before, so that a published list and those of ten thousand additions share memory.
type serverList struct {
	room []*service.RealServer // the list is room[from:]; what lies before was never given out
	from int
}

// all is the list. It is never written again.
func (l *serverList) all() []*service.RealServer { return l.room[l.from:] }

// prepend puts rs at the head.
func (l *serverList) prepend(rs *service.RealServer) {
	if l.from == 0 {
		list := l.all()
		n := len(list) + 4
		l.room = append(make([]*service.RealServer, n, n+len(list)), list...)
		l.from = n
	}
	l.from--
	l.room[l.from] = rs
}

// remove takes rs out. At either end the list becomes shorter where it is; else it moves to memory of its own, since tables in
// force read this.
func (l *serverList) remove(rs *service.RealServer) {
	list := l.all()
	switch i := slices.Index(list, rs); i {
	case -1:
	case len(list) - 1:
		l.room = l.room[:len(l.room)-1]
	case 0:
		l.room, l.from = list[1:], 0
	default:
		l.room, l.from = slices.Concat(list[:i], list[i+1:]), 0
	}
}
