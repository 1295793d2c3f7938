package api

// OpKind names an operation.
type OpKind string

// The operations. Each comment names the fields of Op it takes; all others must be absent.
const (
	AddService    OpKind = "add-service"    // Service, ServiceConfig
	EditService   OpKind = "edit-service"   // Service, ServiceConfig; neither servers nor connections are disturbed
	DeleteService OpKind = "delete-service" // Service; its servers go with it
	AddServer     OpKind = "add-server"     // Service, Server, ServerConfig
	EditServer    OpKind = "edit-server"    // Service, Server, ServerConfig
	DeleteServer  OpKind = "delete-server"  // Service, Server
	ZeroCounters  OpKind = "zero-counters"  // Service, or none for all services and the director's totals
	Flush         OpKind = "flush"          // none: every service goes
	SetTimeouts   OpKind = "set-timeouts"   // Timeouts; a 0 leaves that timeout as it is
	StartDaemon   OpKind = "start-daemon"   // Daemon
	StopDaemon    OpKind = "stop-daemon"    // Daemon, of which only the role counts

	AddMarkRule    OpKind = "add-mark-rule"    // MarkRule, and Position or none for the end
	DeleteMarkRule OpKind = "delete-mark-rule" // MarkRule, all of it

	AddCheck    OpKind = "add-check"    // Service, CheckSpec, and Server or none for all servers of the service
	DeleteCheck OpKind = "delete-check" // Service, CheckID, and Server or none
	SetPolicy   OpKind = "set-policy"   // Service, Policy, all of it

	SetLabel OpKind = "set-label" // Service, Label, and Server or none for the service itself; an empty label is none
)

// Op is one operation of a change.
type Op struct {
	// Kind says what the operation does and which of the other fields it takes: add-service and edit-service take
	// service and serviceConfig; delete-service takes service; add-server and edit-server take service, server and
	// serverConfig; delete-server takes service and server; zero-counters takes service or nothing; flush takes nothing;
	// set-timeouts takes timeouts; start-daemon and stop-daemon take daemon; add-mark-rule takes markRule and position;
	// delete-mark-rule takes markRule; add-check takes service, check and perhaps server; delete-check takes service, checkID and
	// perhaps server; set-policy takes service and policy; set-label takes service, label and perhaps server.
	Kind OpKind `json:"op"`
	// Service, ServiceConfig, Server, ServerConfig, Timeouts, Daemon, MarkRule, CheckSpec, CheckID, Policy and Label are what Kind
	// takes; the others are absent.
	Service       *ServiceKey    `json:"service,omitempty"`
	ServiceConfig *ServiceConfig `json:"serviceConfig,omitempty"`
	Server        *ServerKey     `json:"server,omitempty"`
	ServerConfig  *ServerConfig  `json:"serverConfig,omitempty"`
	Timeouts      *Timeouts      `json:"timeouts,omitempty"`
	Daemon        *Daemon        `json:"daemon,omitempty"`
	MarkRule      *MarkRule      `json:"markRule,omitempty"`
	CheckSpec     CheckSpec      `json:"check,omitempty"`
	CheckID       string         `json:"checkID,omitempty"`
	Policy        PolicySpec     `json:"policy,omitempty"`
	Label         *string        `json:"label,omitempty"`
	// Position is the place of a new mark rule among the others, from 1; 0 (absent) is behind them all.
	Position int `json:"position,omitempty"`
}

// OnError says what becomes of a change when one of its operations is refused.
type OnError string

// What to do about a refused operation.
const (
	// Atomic undoes all: either every operation is applied or none. It is the default.
	Atomic OnError = "atomic"
	// Stop keeps what was applied before and tries nothing after.
	Stop OnError = "stop"
	// Continue leaves out what was refused and applies the rest, as ipvsadm -R does.
	Continue OnError = "continue"
)

// ChangeRequest is the body of POST /v1/change. Its operations are applied in order, each seeing those before it, and
// become visible to the packet path together, by one swap: no packet meets half of a change, and two changes never mix.
type ChangeRequest struct {
	// Ops are the operations in their order, at most MaxOps.
	Ops []Op `json:"ops"`
	// OnError says what becomes of the others when one is refused: "atomic" (the default), "stop" or "continue".
	OnError OnError `json:"onError,omitempty"`
}

// OpResult says what became of one operation. Error is absent when it was applied. An operation that was not tried, or
// whose effect was undone because of another, has the code Skipped.
type OpResult struct {
	Error *Error `json:"error,omitempty"`
}

// ChangeReply answers POST /v1/change: with status 200 when every operation was applied, with 409 when one was not.
type ChangeReply struct {
	// Results has as many elements as the request has operations, in their order.
	Results []OpResult `json:"results"`
}

// Err returns the first refusal that is not a mere consequence of another one, or nil when all was applied.
func (r *ChangeReply) Err() error {
	var skipped *Error
	for _, res := range r.Results {
		switch {
		case res.Error == nil:
		case res.Error.Code != Skipped:
			return res.Error
		case skipped == nil:
			skipped = res.Error
		}
	}
	if skipped != nil {
		return skipped
	}
	return nil
}

// Timeouts are those of ipvsadm --set, in whole seconds.
type Timeouts struct {
	TCP    uint32 `json:"tcpSeconds"`    // an established TCP connection
	TCPFin uint32 `json:"tcpFinSeconds"` // a TCP connection after a FIN
	UDP    uint32 `json:"udpSeconds"`    // a UDP flow
}

// Roles of a sync daemon.
const (
	Master = "master"
	Backup = "backup"
)

// Daemon is a connection sync daemon: a master sends its connections to a multicast group, a backup listens.
type Daemon struct {
	// Role is Master or Backup. Each can run once.
	Role string `json:"role"`
	// Interface sends and receives the multicast.
	Interface string `json:"interface,omitempty"`
	// SyncID is from 0 to 255; a backup with 0 takes every master's messages.
	SyncID uint8 `json:"syncID,omitempty"`
	// MaxLen is the longest message in bytes, without IP and UDP headers; 0 is what fits the interface's MTU.
	MaxLen uint16 `json:"maxLen,omitempty"`
	// Group is the multicast address, as text; empty is 224.0.0.81.
	Group string `json:"group,omitempty"`
	// Port is the UDP port in host order; 0 is 8848.
	Port uint16 `json:"port,omitempty"`
	// TTL of the messages; 0 is 1.
	TTL uint8 `json:"ttl,omitempty"`
}

// DaemonsReply answers GET /v1/daemons: those that run, master first. Defaults are filled in.
type DaemonsReply struct {
	// Daemons is never null.
	Daemons []Daemon `json:"daemons"`
}
