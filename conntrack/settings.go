package conntrack

import "time"

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
