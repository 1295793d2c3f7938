package api

import (
	"encoding/json"
	"net/netip"
	"time"
)

// CheckSpec is a health check as it is set: an object with the field "kind" and any of the settings that every check has (id,
// interval, timeout, retry, rise, fall, jitter, warmup, start, port, via) and of the options of its kind. Any value may be given
// as text. docs/health.md has them all.
type CheckSpec map[string]any

// ID is the check's name among those of its service or server.
func (c CheckSpec) ID() string {
	switch id := c["id"].(type) {
	case nil:
	case string:
		return id
	default:
		b, _ := json.Marshal(id) // the number 5 is taken as the text
		return string(b)
	}
	kind, _ := c["kind"].(string)
	return kind
}

// PolicySpec is what follows for a virtual service from the health of its real servers, as it is set: an object with any of the
// options of a policy (reaction, group, quorum, ...). Any value may be given as text. docs/health.md has them all.
type PolicySpec map[string]any

// QuorumState is whether a virtual service as a whole is up.
type QuorumState struct {
	// Up says that the weights of its servers that are up sum up to its policy's quorum. Weight is that sum.
	Up     bool  `json:"up"`
	Weight int64 `json:"weight"`
	// Sorry is the server that has all new connections meanwhile; absent while the service is up and where there is none.
	Sorry *Server `json:"sorry,omitempty"`
}

// States of health.
const (
	Unknown   = "unknown" // nobody has asked yet
	StateUp   = "up"
	StateDown = "down"
)

// ServerHealth is how a real server of a virtual service stands.
type ServerHealth struct {
	// Service and Server say which it is.
	Service ServiceKey `json:"service"`
	Server  ServerKey  `json:"server"`
	// ServiceLabel and ServerLabel are their names, if they have some.
	ServiceLabel string `json:"serviceLabel,omitempty"`
	ServerLabel  string `json:"serverLabel,omitempty"`
	// State is StateUp, StateDown or Unknown, by all its checks. A server without checks is Unknown.
	State string `json:"state"`
	// Serving says that it takes new connections as far as health goes. One that is up doesn't if another of its group is down.
	Serving bool `json:"serving"`
	// Why says why it doesn't serve, or what it answered last.
	Why string `json:"why,omitempty"`
	// ConfiguredWeight is what was set. Weight is what is in force, 0 for a server that was removed; Factors says what it was
	// multiplied by.
	ConfiguredWeight int            `json:"configuredWeight"`
	Weight           int            `json:"weight"`
	Factors          []WeightFactor `json:"factors,omitempty"`
	// Checks are what was asked, in the order of the checks.
	Checks []CheckHealth `json:"checks"`
}

// WeightFactor is what a weight is multiplied by, and who wants it.
type WeightFactor struct {
	// By names who wants it: a check by its id, or what in uvsd does.
	By string `json:"by"`
	// Factor is 1 for the whole of the configured weight and 0 for none.
	Factor float64 `json:"factor"`
}

// CheckHealth is what one check knows of a server.
type CheckHealth struct {
	// ID is the check's name, Kind its kind.
	ID   string `json:"id"`
	Kind string `json:"kind"`
	// State is StateUp, StateDown or Unknown.
	State string `json:"state"`
	// Address is what its probes are addressed to; ThroughVIP says that this is the virtual address, by the way that clients'
	// packets take to this server.
	Address    netip.AddrPort `json:"address"`
	ThroughVIP bool           `json:"throughVIP,omitempty"`
	// Shared is how many other servers of services the same probes are for.
	Shared int `json:"shared,omitempty"`
	// Last is what came of the last probe; absent before the first has ended. InRow is how many probes ended so in a row.
	Last  *ProbeOutcome `json:"last,omitempty"`
	InRow int           `json:"inRow,omitempty"`
	// Suspected says what in the packet path makes the server suspicious.
	Suspected string `json:"suspected,omitempty"`
	// Changes are the last changes of state, the latest first.
	Changes []StateChange `json:"changes"`
}

// ProbeOutcome is what came of a probe.
type ProbeOutcome struct {
	// Time is when it ended, and Milliseconds how long it took.
	Time         time.Time `json:"time"`
	Milliseconds float64   `json:"milliseconds"`
	// OK says that the server can serve. Text is what it said, or why it can't.
	OK   bool   `json:"ok"`
	Text string `json:"text"`
	// Unable says that the probe could not be made for want of something on the director: it says nothing about the server.
	Unable bool `json:"unable,omitempty"`
}

// StateChange is a change of state.
type StateChange struct {
	// Time is when it changed, To the new state, and Why what the probe that decided came to.
	Time time.Time `json:"time"`
	To   string    `json:"to"`
	Why  string    `json:"why"`
}

// HealthReply answers GET /v1/health.
type HealthReply struct {
	// Servers are those of the services asked for, in the order of GET /v1/services; removed ones come last.
	Servers []ServerHealth `json:"servers"`
}

// CheckTestRequest is the body of POST /v1/checktest: a check is to be made once, now.
type CheckTestRequest struct {
	// Service is the virtual service, and Server its real server; absent: all of them.
	Service ServiceKey `json:"service"`
	Server  *ServerKey `json:"server,omitempty"`
	// Spec is what is asked: a check that needn't be set anywhere. ID instead names one that is set. Without both all that are
	// set are made.
	Spec CheckSpec `json:"check,omitempty"`
	ID   string    `json:"id,omitempty"`
}

// Check says what is wrong with a request.
func (r *CheckTestRequest) Check() error {
	if err := r.Service.Check(); err != nil {
		return err
	}
	if r.Spec != nil && r.ID != "" {
		return Errorf(BadRequest, "a check is given, or one that is set is named, not both")
	}
	if r.Server != nil {
		return checkAddr("real server", r.Server.Address)
	}
	return nil
}

// CheckTest is what came of one check of one server.
type CheckTest struct {
	// Server is the real server, ID the check.
	Server ServerKey `json:"server"`
	ID     string    `json:"id"`
	// Address and ThroughVIP are as in CheckHealth.
	Address    netip.AddrPort `json:"address"`
	ThroughVIP bool           `json:"throughVIP,omitempty"`
	// Outcome is what came of it.
	Outcome ProbeOutcome `json:"outcome"`
	// Exchange is what was sent and received, in its order, as the kind of check tells it.
	Exchange []ExchangePiece `json:"exchange"`
}

// ExchangePiece is a piece of what was sent to a server or came from it.
type ExchangePiece struct {
	// Sent says that the director sent it; the server did otherwise.
	Sent bool `json:"sent,omitempty"`
	// Milliseconds is when, from the beginning of the probe.
	Milliseconds float64 `json:"milliseconds"`
	// Data is the bytes.
	Data []byte `json:"data"`
}

// CheckTestReply answers POST /v1/checktest.
type CheckTestReply struct {
	// Tests are in the order of servers and checks.
	Tests []CheckTest `json:"tests"`
}
