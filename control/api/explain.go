package api

import "net/netip"

// ExplainRequest is the body of POST /v1/explain: a packet that nobody has sent yet.
type ExplainRequest struct {
	// Protocol is TCP or UDP.
	Protocol string `json:"protocol"`
	// Client is where the packet comes from, Virtual where it goes.
	Client  netip.AddrPort `json:"client"`
	Virtual netip.AddrPort `json:"virtual"`
	// Interface is the one that it comes in by; absent is the first.
	Interface string `json:"interface,omitempty"`
	// FWMark is its firewall mark; 0 (absent) leaves that to the mark rules.
	FWMark uint32 `json:"fwmark,omitempty"`
	// Flags are those of a TCP segment by their first letters, such as "S" or "PA"; absent is "S", which opens a connection.
	Flags string `json:"flags,omitempty"`
	// Length is that of the IP packet in bytes, from 1 to 65535; absent is a packet without payload.
	Length int `json:"length,omitempty"`
	// Payload is what a persistence engine may look at.
	Payload []byte `json:"payload,omitempty"`
}

// Check says what is wrong with a request.
func (r *ExplainRequest) Check() error {
	client, virtual := r.Client.Addr(), r.Virtual.Addr()
	switch {
	case r.Protocol != TCP && r.Protocol != UDP:
		return Errorf(BadRequest, "the protocol is %q or %q, not %q", TCP, UDP, r.Protocol)
	case !client.IsValid() || !virtual.IsValid():
		return Errorf(BadRequest, "a client and a virtual address are needed, with their ports")
	case client.Is4In6() || virtual.Is4In6():
		return Errorf(BadRequest, "an IPv4 address is written as IPv6")
	case client.Is4() != virtual.Is4():
		return Errorf(BadRequest, "client %v and virtual address %v are of different families", client, virtual)
	case client.Zone() != "" || virtual.Zone() != "":
		return Errorf(BadRequest, "addresses have no zone here")
	case r.Length < 0 || r.Length > 0xffff:
		return Errorf(BadRequest, "a packet is 1 to 65535 bytes long, not %d", r.Length)
	case r.Flags != "" && r.Protocol != TCP:
		return Errorf(BadRequest, "%s has no flags", r.Protocol)
	}
	for _, c := range r.Flags {
		switch c {
		case 'F', 'S', 'R', 'P', 'A', 'U', 'E', 'C':
		default:
			return Errorf(BadRequest, "flag %q is none of F, S, R, P, A, U, E and C", c)
		}
	}
	return nil
}

// Explanation answers POST /v1/explain: what would become of the packet if it came now, and why. Nothing is changed by it.
type Explanation struct {
	// FWMark is the packet's firewall mark, from the request or the mark rules.
	FWMark uint32 `json:"fwmark,omitempty"`
	// Service is the virtual service that the packet meets; absent: none.
	Service *ServiceKey `json:"service,omitempty"`
	// Scheduler and PersistenceSeconds are the service's.
	Scheduler          string `json:"scheduler,omitempty"`
	PersistenceSeconds uint32 `json:"persistenceSeconds,omitempty"`
	// Owned says that the virtual address is the director's.
	Owned bool `json:"owned"`
	// Known says what there is of the packet's connection: "none"; "open", then Connection has it and the packet goes where it
	// leads; "server-removed", its server is gone and the packet is dropped in silence; "cut", it
	// was cut by a drain and both ends get a reset; "replaced", the packet ends it and
	// opens another.
	Known      string      `json:"known"`
	Connection *Connection `json:"connection,omitempty"`
	// Template is the client's persistence template, if there is one; TemplateDead says that its server is gone or quiesced,
	// so that it is made anew.
	Template     *Connection `json:"template,omitempty"`
	TemplateDead bool        `json:"templateDead,omitempty"`
	// Scheduled says that the scheduler was asked. Servers are what it sees, in its order.
	Scheduled bool              `json:"scheduled"`
	Servers   []ExplainedServer `json:"servers,omitempty"`
	// Server is where the packet goes, Method how; absent: to no real server.
	Server *netip.AddrPort `json:"server,omitempty"`
	Method string          `json:"method,omitempty"`
	// NextHop is the way to the server.
	NextHop *ExplainedHop `json:"nextHop,omitempty"`
	// MTU is the longest IP packet that the way carries, a tunnel's header allowed for, and Fits says that this one goes as
	// it is; otherwise it is cut up, or its sender is told.
	MTU  int  `json:"mtu,omitempty"`
	Fits bool `json:"fits,omitempty"`
	// Verdict is how the packet would be counted: "forwarded-dr", "answered-reset", ... Meaning says it in words.
	Verdict string `json:"verdict"`
	Meaning string `json:"meaning"`
}

// ExplainedServer is a real server in a scheduler's eyes.
type ExplainedServer struct {
	ServerKey
	// Method, Weight, Active and Inactive are as in ServerConfig and Server.
	Method   string `json:"method"`
	Weight   int    `json:"weight"`
	Active   uint64 `json:"active"`
	Inactive uint64 `json:"inactive"`
	// State is "eligible", "quiesced" (weight 0) or "overloaded" (the upper threshold was reached).
	State string `json:"state"`
	// Load and Per are what a scheduler that compares servers one by one divides: the least Load per Per wins.
	Load *int64 `json:"load,omitempty"`
	Per  *int64 `json:"per,omitempty"`
	// Picked marks the scheduler's choice.
	Picked bool `json:"picked,omitempty"`
}

// ExplainedHop is the way to a real server.
type ExplainedHop struct {
	// Status is "ready", "pending" (being resolved), "unreachable", "no route", "not attached" or "local".
	Status string `json:"status"`
	// Interface, MAC and Gateway are there if it is ready. Gateway is absent where the server is a neighbour.
	Interface string      `json:"interface,omitempty"`
	MAC       string      `json:"mac,omitempty"`
	Gateway   *netip.Addr `json:"gateway,omitempty"`
}
