package api

import "net/netip"

// DrainRequest is the body of POST /v1/drain: a real server is to be emptied. Its weight becomes 0 in every service that has
// it, or in one; uvsd keeps the old weights for POST /v1/undrain as long as it runs.
type DrainRequest struct {
	// Address is the real server's. Port narrows it to the servers of that port; 0 (absent) takes all.
	Address netip.Addr `json:"address"`
	Port    uint16     `json:"port,omitempty"`
	// Service narrows it to one virtual service.
	Service *ServiceKey `json:"service,omitempty"`
	// WithinSeconds is how long the connections may take to end by themselves; what is left then is cut: TCP with a reset to
	// both ends at its next packet, everything else at once. 0 cuts now. Absent: nothing is ever cut, and a time that was set
	// before is called off.
	WithinSeconds *uint32 `json:"withinSeconds,omitempty"`
}

// MaxDrainSeconds is the longest time that a drain may be given: 31 days.
const MaxDrainSeconds = 31 * 24 * 60 * 60

// Check says what is wrong with a request.
func (r *DrainRequest) Check() error {
	if r.WithinSeconds != nil && *r.WithinSeconds > MaxDrainSeconds {
		return Errorf(BadRequest, "a drain takes at most %d seconds, not %d", MaxDrainSeconds, *r.WithinSeconds)
	}
	return checkDrained(r.Address, r.Service)
}

// UndrainRequest is the body of POST /v1/undrain: servers that are being drained get their weights back.
type UndrainRequest struct {
	// Address, Port and Service choose the servers as in DrainRequest.
	Address netip.Addr  `json:"address"`
	Port    uint16      `json:"port,omitempty"`
	Service *ServiceKey `json:"service,omitempty"`
}

// Check says what is wrong with a request.
func (r *UndrainRequest) Check() error { return checkDrained(r.Address, r.Service) }

func checkDrained(addr netip.Addr, service *ServiceKey) error {
	switch {
	case !addr.IsValid():
		return Errorf(BadRequest, "the real server's address is missing")
	case addr.Is4In6() || addr.Zone() != "":
		return Errorf(BadRequest, "address %v has a zone, or is IPv4 written as IPv6", addr)
	case service != nil:
		return service.Check()
	}
	return nil
}

// States of a drain.
const (
	Draining = "draining" // connections or templates are left
	Cutting  = "cutting"  // its time is up: what turns up is cut
	Drained  = "empty"    // nothing is left
)

// Drain is a real server of one virtual service that is being drained, or was and has not got its weight back.
type Drain struct {
	// Service and Server say which real server it is.
	Service ServiceKey `json:"service"`
	Server  ServerKey  `json:"server"`
	// ServiceLabel and ServerLabel are their names, if they have some.
	ServiceLabel string `json:"serviceLabel,omitempty"`
	ServerLabel  string `json:"serverLabel,omitempty"`
	// Weight is what POST /v1/undrain will give it back.
	Weight int `json:"weight"`
	// State is Draining, Cutting or Drained.
	State string `json:"state"`
	// Active, Inactive and Persistent count what is left, as in Server.
	Active     uint64 `json:"active"`
	Inactive   uint64 `json:"inactive"`
	Persistent uint64 `json:"persistent"`
	// Ended counts the connections that ended by themselves since the drain began, Cut those that were cut.
	Ended uint64 `json:"ended"`
	Cut   uint64 `json:"cut"`
	// ElapsedSeconds is how long it has been going on, and LeftSeconds how long until the rest is cut; absent: never.
	ElapsedSeconds uint32  `json:"elapsedSeconds"`
	LeftSeconds    *uint32 `json:"leftSeconds,omitempty"`
	// EmptyInSeconds is when it will be empty, if its connections go on ending as they did; absent if none has ended yet and
	// nothing is known of those before.
	EmptyInSeconds *uint32 `json:"emptyInSeconds,omitempty"`
}

// DrainsReply answers POST /v1/drain and POST /v1/undrain with the servers that the request chose, and GET /v1/drain with all
// that are being drained. It is never null.
type DrainsReply struct {
	// Drains has one element for each real server of each service.
	Drains []Drain `json:"drains"`
}
