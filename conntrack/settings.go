package conntrack

import (
	"math"
	"time"
)

// Settings are the sysctls of IPVS that the connection table obeys, by the kernel's names and meanings
// (Documentation/networking/ipvs-sysctl.rst). The zero value is not the default; DefaultSettings is.
type Settings struct {
	// ConnReuseMode (conn_reuse_mode) says when a SYN on an existing entry is scheduled anew: bit 0, in TIME_WAIT and
	// CLOSE; bit 1, in FIN_WAIT too where the server's packets don't pass the director. 0 never. Default 1.
	ConnReuseMode int
	// ExpireNodestConn (expire_nodest_conn) drops the entries of removed servers at once, and those of servers with
	// weight 0 when a SYN comes, instead of dropping their packets. Default false.
	ExpireNodestConn bool
	// ExpireQuiescentTemplate (expire_quiescent_template) makes persistence templates of servers with weight 0
	// invalid. Default false.
	ExpireQuiescentTemplate bool
	// SecureTCP (secure_tcp, resolved by the caller to what is in force now) takes the stricter table of TCP states.
	// Default false.
	SecureTCP bool
	// KeepTemplateTimeout (uvs.keep_template_timeout, not the kernel's) leaves a persistence template its own timeout when
	// it runs out while connections hang on it, instead of 60 seconds. Default false.
	KeepTemplateTimeout bool
}

// DefaultSettings returns the kernel's defaults.
func DefaultSettings() Settings { return Settings{ConnReuseMode: 1} }

// Timeouts are those that ipvsadm --set changes.
type Timeouts struct {
	// TCP is for ESTABLISHED, default 15 minutes; TCPFin for FIN_WAIT, default 2 minutes; UDP default 5 minutes.
	TCP, TCPFin, UDP time.Duration
}

// DefaultTimeouts returns the kernel's defaults.
func DefaultTimeouts() Timeouts {
	return Timeouts{TCP: 15 * time.Minute, TCPFin: 2 * time.Minute, UDP: 5 * time.Minute}
}

// rules are the settings as the packet path reads them: immutable, swapped whole.
type rules struct {
	Settings
	timeouts Timeouts
	tcp      *tcpTable
	ticks    [NumStates]uint32 // timeout by state
}

func newRules(s Settings, timeouts Timeouts) *rules {
	r := &rules{Settings: s, timeouts: timeouts, tcp: &tcpStates}
	if s.SecureTCP {
		r.tcp = &secureTCPStates
	}
	for state, d := range stateTimeouts {
		r.ticks[state] = timeoutTicks(d)
	}
	r.ticks[Established] = timeoutTicks(timeouts.TCP)
	r.ticks[FinWait] = timeoutTicks(timeouts.TCPFin)
	r.ticks[UDPNormal] = timeoutTicks(timeouts.UDP)
	return r
}

// timeoutTicks is what to add to the current tick to get a deadline that isn't early: d rounded up, and one for the part
// of the current tick that is over. Longer timeouts than the clock can tell become the longest, half a year.
func timeoutTicks(d time.Duration) uint32 {
	if d > math.MaxInt64-1<<tickShift {
		return maxTimeout
	}
	return uint32(min(max(int64(d)+1<<tickShift-1, 0)>>tickShift+1, maxTimeout))
}

// Settings returns the settings in force.
func (t *Table) Settings() Settings { return t.rules.Load().Settings }

// SetSettings changes the settings, from the next packet on.
func (t *Table) SetSettings(s Settings) {
	t.rulesMu.Lock()
	defer t.rulesMu.Unlock()
	t.rules.Store(newRules(s, t.rules.Load().timeouts))
}

// Timeouts returns the timeouts in force.
func (t *Table) Timeouts() Timeouts { return t.rules.Load().timeouts }

// SetTimeouts changes timeouts; 0 leaves one as it is. An entry follows at its next packet, as in the kernel.
func (t *Table) SetTimeouts(tcp, tcpFin, udp time.Duration) {
	t.rulesMu.Lock()
	defer t.rulesMu.Unlock()
	r := t.rules.Load()
	timeouts := r.timeouts
	for _, c := range []struct {
		old *time.Duration
		d   time.Duration
	}{{&timeouts.TCP, tcp}, {&timeouts.TCPFin, tcpFin}, {&timeouts.UDP, udp}} {
		if c.d > 0 {
			*c.old = c.d
		}
	}
	t.rules.Store(newRules(r.Settings, timeouts))
}
