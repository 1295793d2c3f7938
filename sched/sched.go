// Package sched has IPVS's schedulers: each picks the real server for a new connection exactly as the kernel's module of
// the same name does, ties and quirks included; and rt, which only LVS's literature has. A scheduler is a pure decision over a service's list of servers, the
// flow and a little state of its own, so that the wire, the simulator and the tests run the same code.
//
// Lists have the kernel's order: the server added last comes first. Every scheduler passes over a server that is
// overloaded or has weight 0, but for lblc, which leaves a destination with its server when that one is overloaded.
package sched

import (
	"fmt"
	"slices"
	"time"

	"uvs/service"
)

// None is the name of the service without a scheduler, which refuses every new connection.
const None = "none"

// Default is the scheduler of a service that names none, as in ipvsadm.
const Default = "wlc"

// Config holds what an administrator may change about schedulers; in the kernel these are sysctls.
type Config struct {
	// LBLCExpiration is how long lblc remembers a destination that no connection goes to. 0 means 24 hours.
	LBLCExpiration time.Duration
	// LBLCRExpiration is the same for lblcr, and also how long a destination's set of servers stays as it is before its
	// most loaded member is dropped. 0 means 24 hours.
	LBLCRExpiration time.Duration
	// Seed makes the draws of twos and rt repeatable: schedulers made with one seed draw alike. 0 means a seed of chance.
	Seed uint64
}

// constructors maps ipvsadm's names to schedulers.
var constructors = map[string]func(c *Config, f service.SchedFlags) service.Scheduler{
	"rr":    func(*Config, service.SchedFlags) service.Scheduler { return new(rr) },
	"wrr":   func(*Config, service.SchedFlags) service.Scheduler { return newWRR() },
	"lc":    func(*Config, service.SchedFlags) service.Scheduler { return lc{} },
	"wlc":   func(*Config, service.SchedFlags) service.Scheduler { return wlc{} },
	"sed":   func(*Config, service.SchedFlags) service.Scheduler { return sed{} },
	"nq":    func(*Config, service.SchedFlags) service.Scheduler { return nq{} },
	"fo":    func(*Config, service.SchedFlags) service.Scheduler { return fo{} },
	"ovf":   func(*Config, service.SchedFlags) service.Scheduler { return ovf{} },
	"twos":  func(c *Config, _ service.SchedFlags) service.Scheduler { return twosWith(newStream(c.Seed)) },
	"rt":    func(c *Config, _ service.SchedFlags) service.Scheduler { return rtWith(newStream(c.Seed)) },
	"dh":    func(*Config, service.SchedFlags) service.Scheduler { return new(dh) },
	"sh":    func(_ *Config, f service.SchedFlags) service.Scheduler { return newSH(f) },
	"mh":    func(_ *Config, f service.SchedFlags) service.Scheduler { return newMH(f) },
	"lblc":  func(c *Config, _ service.SchedFlags) service.Scheduler { return newLBLC(c.LBLCExpiration) },
	"lblcr": func(c *Config, _ service.SchedFlags) service.Scheduler { return newLBLCR(c.LBLCRExpiration) },
}

// New makes the scheduler of one service from ipvsadm's name for it, with default settings. "none" gives nil. The error
// wraps service.ErrNoScheduler.
func New(name string, flags service.SchedFlags) (service.Scheduler, error) {
	return new(Config).New(name, flags)
}

// New is the function New with the settings of c.
func (c *Config) New(name string, flags service.SchedFlags) (service.Scheduler, error) {
	if name == None {
		return nil, nil
	}
	make, ok := constructors[name]
	if !ok {
		return nil, fmt.Errorf("scheduler %q: %w", name, service.ErrNoScheduler)
	}
	return make(c, flags), nil
}

// Apply puts the settings of c into force for a scheduler that New made with others.
func (c *Config) Apply(s service.Scheduler) {
	switch s := s.(type) {
	case *lblc:
		s.known.expire(c.LBLCExpiration)
	case *lblcr:
		s.known.expire(c.LBLCRExpiration)
	}
}

// Known says that New knows the name.
func Known(name string) bool { return name == None || constructors[name] != nil }

// Names lists the schedulers in alphabetical order, without "none".
func Names() []string {
	names := make([]string, 0, len(constructors))
	for name := range constructors {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// genericFlags are the names every scheduler takes; ownFlags those that only one knows, printed in their place.
var (
	genericFlags = []flagName{{"flag-1", service.SchedFlag1}, {"flag-2", service.SchedFlag2}, {"flag-3", service.SchedFlag3}}
	ownFlags     = map[string][]flagName{
		"sh": {{"sh-fallback", service.SchedFlag1}, {"sh-port", service.SchedFlag2}},
		"mh": {{"mh-fallback", service.SchedFlag1}, {"mh-port", service.SchedFlag2}},
	}
)

type flagName struct {
	name string
	flag service.SchedFlags
}

// ParseFlags turns names that ipvsadm's -b takes with this scheduler into flags: flag-1 to flag-3, or the scheduler's
// own. The error names the first that is neither and wraps service.ErrInvalid.
func ParseFlags(scheduler string, names []string) (service.SchedFlags, error) {
	var flags service.SchedFlags
	for _, name := range names {
		is := func(f flagName) bool { return f.name == name }
		if i := slices.IndexFunc(ownFlags[scheduler], is); i >= 0 {
			flags |= ownFlags[scheduler][i].flag
		} else if i := slices.IndexFunc(genericFlags, is); i >= 0 {
			flags |= genericFlags[i].flag
		} else {
			return 0, fmt.Errorf("scheduler flag %q with scheduler %q: %w", name, scheduler, service.ErrInvalid)
		}
	}
	return flags, nil
}

// FlagNames is what ParseFlags takes back, a scheduler's own names first.
func FlagNames(scheduler string, flags service.SchedFlags) []string {
	var names []string
	for _, known := range [][]flagName{ownFlags[scheduler], genericFlags} {
		for _, f := range known {
			if flags&f.flag != 0 {
				names = append(names, f.name)
				flags &^= f.flag
			}
		}
	}
	return names
}

// stateless is embedded by schedulers that keep nothing between two decisions.
type stateless struct{}

// Changed implements service.Scheduler.
func (stateless) Changed(service.Change) {}

// Prepare implements service.Scheduler.
func (stateless) Prepare([]*service.RealServer) {}

// overhead is the load that lc, wlc, lblc, lblcr and twos compare: an active connection weighs as much as 256 inactive
// ones (ip_vs.h, ip_vs_dest_conn_overhead).
func overhead(rs *service.RealServer) int64 {
	return int64(rs.Active())<<8 + int64(rs.Inactive())
}
