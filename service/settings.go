package service

import (
	"sync/atomic"
	"time"
)

// Settings are those of IPVS's sysctls (Documentation/networking/ipvs-sysctl.rst) that uvs knows, by their meaning there,
// and the few of its own. The zero value is not the default; DefaultSettings is. A Table has a copy that never changes.
type Settings struct {
	// ConnReuseMode (conn_reuse_mode) says when a SYN on an existing entry is scheduled anew: bit 0, in TIME_WAIT and
	// CLOSE; bit 1, in FIN_WAIT too where the server's packets don't pass the director. Default 1.
	ConnReuseMode int
	// SloppyTCP and SloppySCTP (sloppy_tcp, sloppy_sctp) let any packet but a reset, or but an abort, open a connection.
	SloppyTCP, SloppySCTP bool
	// ExpireNodestConn (expire_nodest_conn) drops the entries of removed servers at once instead of their packets.
	ExpireNodestConn bool
	// ExpireQuiescentTemplate (expire_quiescent_template) makes persistence templates of servers with weight 0 invalid.
	ExpireQuiescentTemplate bool
	// CacheBypass (cache_bypass) sends what finds no server of a fwmark service to its original destination.
	CacheBypass bool
	// ScheduleICMP (schedule_icmp) lets an ICMP error about no known connection open one.
	ScheduleICMP bool
	// NATICMPSend (nat_icmp_send) answers a real server's packet of no known connection with port unreachable.
	NATICMPSend bool
	// PMTUDisc (pmtu_disc) answers what is too long for a tunnel and has DF with fragmentation-needed, and copies DF into
	// tunnels' outer headers. IPv6 is always answered. Default true.
	PMTUDisc bool
	// IgnoreTunneled (ignore_tunneled) keeps IPVS from looking at packets once more that left a tunnel of the host.
	IgnoreTunneled bool
	// SNATReroute (snat_reroute) routes NAT's answers by their new source. Default true.
	SNATReroute bool
	// Conntrack (conntrack) keeps netfilter's connection tracking informed.
	Conntrack bool
	// DebugLevel (debug_level) is how much a kernel built for it logs about IPVS.
	DebugLevel int
	// RunEstimation (run_estimation) lets the kernel estimate rates. Default true.
	RunEstimation bool
	// BackupOnly (backup_only) keeps a director that is a backup from scheduling.
	BackupOnly bool

	// DropEntry, DropPacket and SecureTCP (drop_entry, drop_packet, secure_tcp) are the defences against floods.
	DropEntry, DropPacket, SecureTCP DefenceMode
	// AmemThresh (amemthresh) is the number of free pages of memory under which the automatic ones begin. Default 1024.
	AmemThresh int
	// AmDropRate (am_droprate) is n of the n-th packet that DropPacket drops when it is DefenceAlways. Default 10.
	AmDropRate int

	// LBLCExpiration and LBLCRExpiration (lblc_expiration, lblcr_expiration) are how long those schedulers remember a
	// destination. Default 24 hours.
	LBLCExpiration, LBLCRExpiration time.Duration

	Sync SyncSettings

	// KeepTemplateTimeout (uvs.keep_template_timeout) leaves a persistence template its service's timeout when it runs out
	// while connections hang on it. In the kernel, and by default, it gets 60 seconds, then and from then on, so that a
	// long connection shortens its client's persistence.
	KeepTemplateTimeout bool
}

// SyncSettings are those of connection synchronisation.
type SyncSettings struct {
	Version       int           // sync_version: 0 or 1, the default
	Ports         int           // sync_ports: how many daemons with ports of their own, a power of two up to 64
	PersistMode   bool          // sync_persist_mode: of persistent services, templates alone
	QueueMax      int           // sync_qlen_max: messages waiting to be sent; 0, the default, is up to uvs
	SocketSize    int           // sync_sock_size: bytes of the socket's buffer; 0, the default, is the system's
	Threshold     int           // sync_threshold, first number: the packet at which a connection is sent, default 3
	Period        int           // and second: sent again after so many, default 50
	RefreshPeriod time.Duration // sync_refresh_period: sent again when the timer moved by so much; 0, the default, is off
	Retries       int           // sync_retries: 0 to 3
}

// DefaultSettings returns the kernel's defaults.
func DefaultSettings() Settings {
	return Settings{
		ConnReuseMode: 1, PMTUDisc: true, SNATReroute: true, RunEstimation: true, AmemThresh: 1024, AmDropRate: 10,
		LBLCExpiration: 24 * time.Hour, LBLCRExpiration: 24 * time.Hour,
		Sync: SyncSettings{Version: 1, Ports: 1, Threshold: 3, Period: 50},
	}
}

// DefenceMode says when a defence is used. The values are the kernel's.
type DefenceMode int

// The modes.
const (
	DefenceOff    DefenceMode = iota // never
	DefenceAuto                      // when memory is short
	DefenceActive                    // what DefenceAuto becomes for as long as memory is short
	DefenceAlways                    // always
)

// Limiter drops would-be new connections while the defence drop_packet is in force. It is shared by successive tables;
// its methods may be called by many goroutines. A nil Limiter drops nothing.
type Limiter struct {
	rate  atomic.Int32
	count atomic.Int32
}

// Drop says that this packet, which may open a connection, is to be dropped: every rate-th one (ip_vs_ctl.c,
// ip_vs_todrop).
func (l *Limiter) Drop() bool {
	if l == nil {
		return false
	}
	rate := l.rate.Load()
	if rate == 0 || l.count.Add(-1) > 0 {
		return false
	}
	l.count.Store(rate)
	return true
}

// Set makes Drop choose every rate-th packet from now on; 0 is none. restart begins to count anew.
func (l *Limiter) Set(rate int, restart bool) {
	if restart {
		l.count.Store(int32(rate))
	}
	l.rate.Store(int32(rate))
}

// Rate is what Set was told last.
func (l *Limiter) Rate() int { return int(l.rate.Load()) }
