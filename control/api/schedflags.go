package api

import "fmt"

// SchedFlags is a set of scheduler flags: bit 0 is flag-1, bit 1 flag-2, bit 2 flag-3, as IPVS numbers them.
type SchedFlags uint8

// The three flags a scheduler can give a meaning to.
const (
	SchedFlag1 SchedFlags = 1 << iota
	SchedFlag2
	SchedFlag3
)

// schedFlags lists the names a flag has: without a scheduler it fits every one.
var schedFlags = []struct {
	name      string
	scheduler string
	flag      SchedFlags
}{
	{"sh-fallback", "sh", SchedFlag1},
	{"sh-port", "sh", SchedFlag2},
	{"mh-fallback", "mh", SchedFlag1},
	{"mh-port", "mh", SchedFlag2},
	{"flag-1", "", SchedFlag1},
	{"flag-2", "", SchedFlag2},
	{"flag-3", "", SchedFlag3},
}

// ParseSchedFlags returns the flags behind names for a scheduler. A name may be generic (flag-1, flag-2, flag-3), which
// every scheduler takes, or the scheduler's own (sh-fallback, sh-port, mh-fallback, mh-port). The error names the first
// that is unknown or another scheduler's; it wraps Invalid.
func ParseSchedFlags(scheduler string, names []string) (SchedFlags, error) {
	var flags SchedFlags
next:
	for _, name := range names {
		for _, f := range schedFlags {
			if f.name != name {
				continue
			}
			if f.scheduler != "" && f.scheduler != scheduler {
				return 0, Errorf(Invalid, "scheduler flag %q belongs to %s, not to %s", name, f.scheduler, scheduler)
			}
			flags |= f.flag
			continue next
		}
		return 0, Errorf(Invalid, "unknown scheduler flag %q", name)
	}
	return flags, nil
}

// Names returns the names of the flags for a scheduler: its own where it has them, else the generic ones. It is what a
// backend reports and ParseSchedFlags takes back.
func (f SchedFlags) Names(scheduler string) []string {
	var names []string
	for bit := SchedFlag1; bit <= SchedFlag3; bit <<= 1 {
		if f&bit == 0 {
			continue
		}
		name := fmt.Sprintf("flag-%d", map[SchedFlags]int{SchedFlag1: 1, SchedFlag2: 2, SchedFlag3: 3}[bit])
		for _, n := range schedFlags {
			if n.flag == bit && n.scheduler == scheduler {
				name = n.name
			}
		}
		names = append(names, name)
	}
	return names
}
