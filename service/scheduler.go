package service

import "uvs/packet"

// Request is a new connection that wants a real server.
type Request struct {
	Service *VirtualService
	// Flow is the first packet's: from the client to the VIP.
	Flow packet.Flow
	// Now is the time in nanoseconds on a clock that never jumps (CLOCK_BOOTTIME on the wire, virtual in the simulator).
	Now int64
}

// Scheduler picks real servers for one virtual service and holds that service's scheduling state.
type Scheduler interface {
	// Pick returns the real server for a new connection, or nil when none can take it. servers is the published
	// service's list, the latest added first. Every worker calls it at once, so it must not block or allocate (lblc and
	// lblcr may, to remember a new destination).
	Pick(r *Request, servers []*RealServer) *RealServer
	// Changed tells of one change to the list, in the order the changes were made. It must be cheap; tables are built by
	// Prepare. Calls are serialised with each other and with Prepare, but run beside Pick. Weights are the staged ones.
	Changed(c Change)
	// Prepare builds what Pick needs for this list, by the staged weights: once when the scheduler is made, with the list
	// it begins with, and then after each series of changes, right before the list is published. The list may not be kept.
	Prepare(servers []*RealServer)
}

// Forker is a Scheduler whose Pick changes something that the next Pick depends on.
type Forker interface {
	// Fork returns a scheduler that decides r as this one would. Nothing that it does changes this one.
	Fork(r *Request) Scheduler
}

// Fork returns a scheduler that decides the request r as s would decide it next, ties, cursors and drawn numbers included,
// and whose decision leaves s as it is. It is for one Pick, by the list that s would be given. Fork(nil, r) is nil.
func Fork(s Scheduler, r *Request) Scheduler {
	if f, ok := s.(Forker); ok {
		return f.Fork(r)
	}
	return s // decides by what it reads; its Pick changes nothing
}

// ChangeKind says what happened to a server in its service's list.
type ChangeKind uint8

// The kinds of change.
const (
	ServerAdded   ChangeKind = iota // at the head of the list
	ServerEdited                    // weight, thresholds or method; also an edit that changes nothing
	ServerRemoved                   // removed from the list
	ServiceEdited                   // the service's flags changed
)

// Change is one change to a service's list of servers.
type Change struct {
	Kind ChangeKind
	// Server is the one added, edited or removed; nil for ServiceEdited.
	Server *RealServer
	// Before and After are the lists before and after the change; they may not be kept.
	Before, After []*RealServer
	// Flags are the scheduler's flags, after the change.
	Flags SchedFlags
}
