package api

import (
	"net/netip"
	"time"
)

// ShadowRequest is the body of POST /v1/shadows: schedulers are put on trial beside the one that decides for a virtual
// service, or their trial ends. New connections are offered to them as well, and what they would have done is counted; no packet
// goes another way for it.
type ShadowRequest struct {
	// Service is the virtual service.
	Service ServiceKey `json:"service"`
	// Add are schedulers to be tried from now on, each as SCHEDULER[:FLAG,...], such as "wlc" or "mh:mh-port".
	Add []string `json:"add,omitempty"`
	// Remove are schedulers whose trial ends, as they are listed.
	Remove []string `json:"remove,omitempty"`
	// End ends all trials of the service; nothing else is named then.
	End bool `json:"end,omitempty"`
}

// MaxShadows is how many schedulers can be on trial at once for one virtual service.
const MaxShadows = 8

// Check says what is wrong with a request.
func (r *ShadowRequest) Check() error {
	switch n := len(r.Add) + len(r.Remove); {
	case r.End && n > 0:
		return Errorf(BadRequest, "end goes without add and remove")
	case !r.End && n == 0:
		return Errorf(BadRequest, "no scheduler is named")
	case n > 2*MaxShadows:
		return Errorf(BadRequest, "%d schedulers are named, at most %d can be on trial", n, MaxShadows)
	}
	return r.Service.Check()
}

// ShadowsReply answers POST /v1/shadows with the service's trials and GET /v1/shadows with those of all services, or of one.
type ShadowsReply struct {
	// Shadows has one element for each service that has trials, in the order of services. It is never null.
	Shadows []Shadow `json:"shadows"`
	// Missed counts connections that came too fast to be offered, of all services, since the first trial began.
	Missed uint64 `json:"missed"`
	// OneIn is 1 as long as all clients' connections are offered; beyond some 200,000 connections at a time it is those of
	// one client in 2, 4 and so on.
	OneIn int `json:"oneIn"`
}

// Shadow is the trials of one virtual service.
type Shadow struct {
	// Service is the virtual service, and Scheduler what really decides there.
	Service   ServiceKey `json:"service"`
	Scheduler string     `json:"scheduler"`
	// Since is when the first trial began, and Seconds how long ago that is.
	Since   time.Time `json:"since"`
	Seconds float64   `json:"seconds"`
	// Trials begins with what really happened.
	Trials []ShadowTrial `json:"trials"`
}

// ShadowTrial is what one scheduler did, or would have done.
type ShadowTrial struct {
	// Scheduler is the scheduler with its flags; Real says that it is the one that decides, and all this really happened.
	Scheduler string `json:"scheduler"`
	Real      bool   `json:"real"`
	// Offered counts the new connections that it was asked about, Misses those that it had no server for, Differs those that
	// it sent elsewhere than they really went.
	Offered uint64 `json:"offered"`
	Misses  uint64 `json:"misses"`
	Differs uint64 `json:"differs"`
	// Returning counts connections of clients that are remembered from earlier, and Moved those of them that went to another
	// server than the client's last one.
	Returning uint64 `json:"returning"`
	Moved     uint64 `json:"moved"`
	// AfterChange counts clients that came for the first time after servers or weights had changed, and MovedByChange those of
	// them that met another server.
	AfterChange   uint64 `json:"afterChange"`
	MovedByChange uint64 `json:"movedByChange"`
	// New is how unevenly new connections were spread over servers, by their weight; Held is that of the connections that they
	// have at a time, the mean of one look a second, of which there were Samples with any connection.
	New     ShadowImbalance `json:"new"`
	Held    ShadowImbalance `json:"held"`
	Samples uint64          `json:"samples"`
	// Servers are the real servers as this scheduler has loaded them: those in the service, the latest added first, and
	// others that had connections.
	Servers []ShadowServer `json:"servers"`
}

// ShadowImbalance is how unevenly load is spread over servers, by their weight.
type ShadowImbalance struct {
	// MaxMean is the most loaded server's load over the mean; 1 is even.
	MaxMean float64 `json:"maxMean"`
	// Jain is Jain's fairness index: 1 is even, one over the number of servers is all on one.
	Jain float64 `json:"jain"`
	// CV is the coefficient of variation, standard deviation over mean; 0 is even.
	CV float64 `json:"cv"`
}

// ShadowServer is a real server in a trial.
type ShadowServer struct {
	// Address is the real server's, with its port.
	Address netip.AddrPort `json:"address"`
	// Weight is its weight as configured, and Removed says that it isn't in the service any more.
	Weight  int  `json:"weight"`
	Removed bool `json:"removed,omitempty"`
	// Conns counts the connections that it got, Fair how many it would have got by weight alone.
	Conns uint64  `json:"conns"`
	Fair  float64 `json:"fair"`
	// Active and Inactive count the connections that it has in IPVS's sense, Peak the most of both that it had at a time.
	Active   uint64 `json:"active"`
	Inactive uint64 `json:"inactive"`
	Peak     uint64 `json:"peak"`
}
