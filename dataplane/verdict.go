package dataplane

import "uvs/packet"

// Verdict is how a frame ended. Every frame received ends in exactly one; the counts of all verdicts add up to the frames
// received, but for those still waiting (in the slow path's queue, for a next hop, for their datagram's other fragments).
type Verdict uint8

// The verdicts. Those below firstPass moved a packet or answered it; those from firstPass on were not ours to touch; those
// from firstDrop on are drops by reason.
const (
	verdictNone Verdict = iota // set aside: counted when it ends

	ForwardedDR     // to a real server by direct routing
	ForwardedNAT    // to a real server, translated
	ForwardedTUN    // to a real server, encapsulated
	ForwardedLocal  // to a real server that is the director itself
	ForwardedBypass // to its original destination (cache_bypass)
	Replied         // a real server's answer, translated back, to the client
	ForwardedICMP   // an ICMP error, to whom its connection belongs
	ForwardedHosts  // of the host's own, from the device that serves Local, on to where the host sent it
	InnerForward    // a real server's own traffic (--inner-traffic), either way
	AnsweredARP     // ARP request for an address of ours
	AnsweredNDP     // neighbour solicitation for an address of ours, or a listener query
	AnsweredEcho    // ICMP echo request to an address of ours
	AnsweredReset   // refused with a TCP reset
	AnsweredICMP    // refused with an ICMP error
	AnsweredCut     // of a connection that drain cut: both ends get a reset
	AnsweredProbe   // itself an answer, to a probe of ours

	PassForeignMAC // addressed to another station's MAC
	PassGroup      // broadcast or multicast that uvs doesn't handle
	PassVLAN       // carries a VLAN tag: attach uvs to the VLAN's own interface
	PassEtherType  // neither IP nor ARP
	PassNotOurs    // no virtual address, no connection
	PassARP        // ARP about addresses that aren't ours
	PassNDP        // neighbour discovery about addresses that aren't ours
	PassProtocol   // to a virtual address, but of a protocol IPVS doesn't balance

	DropTruncated    // bytes were missing when the kernel handed it over
	DropShort        // cut short: no whole Ethernet, IP or L4 header
	DropIPHeader     // version, header length or total length lie
	DropIPChecksum   // wrong IPv4 header checksum
	DropL4Header     // TCP data offset or UDP length lie
	DropOffload      // the virtio-net header asks for a checksum outside the packet's payload
	DropAddress      // source address that cannot be one
	DropNoConn       // belongs to no connection and cannot open one; nothing to answer
	DropNoServer     // its real server was removed (expire_nodest_conn=0)
	DropTableFull    // no room for another connection
	DropNoScheduler  // the service has no scheduler or no server, and the answer was not allowed
	DropNoRoute      // no route to the next hop; like the next two and DropHeldTimeout, its sender is told
	DropNotAttached  // the route leaves by an interface uvs isn't attached to
	DropUnreachable  // the next hop doesn't answer ARP or neighbour discovery
	DropHeldFull     // too many packets wait for that next hop
	DropHeldTimeout  // waited for its next hop in vain
	DropTTL          // its time to live ran out and the answer was not allowed
	DropTooBig       // longer than the way out and the answer was not allowed
	DropRateLimit    // an answer of ours was due but its rate is limited
	DropSlowPathFull // the slow path's queue was full
	DropFragment     // fragments that overlap, contradict or never completed
	DropInner        // a real server's own traffic, refused by --inner-traffic
	DropICMP         // ICMP error that quotes no connection of ours
	DropMethod       // forwarding method that this director cannot carry out
	DropARP          // malformed ARP
	DropNDP          // neighbour or listener discovery that isn't valid
	DropFTP          // a reply on an FTP control connection that could not be rewritten
	DropSIP          // no connection has it, and it has no Call-ID
	DropDefence      // a new connection that drop_packet chose
	DropNoMasqPort   // no port left to masquerade with
	numVerdicts
	firstPass = PassForeignMAC
	firstDrop = DropTruncated
)

var verdictNames = [numVerdicts]string{
	verdictNone:      "waiting",
	ForwardedDR:      "forwarded-dr",
	ForwardedNAT:     "forwarded-nat",
	ForwardedTUN:     "forwarded-tun",
	ForwardedLocal:   "forwarded-local",
	ForwardedBypass:  "forwarded-bypass",
	Replied:          "replied",
	ForwardedICMP:    "forwarded-icmp",
	ForwardedHosts:   "forwarded-hosts",
	InnerForward:     "inner-forwarded",
	AnsweredARP:      "answered-arp",
	AnsweredNDP:      "answered-ndp",
	AnsweredEcho:     "answered-echo",
	AnsweredReset:    "answered-reset",
	AnsweredICMP:     "answered-icmp",
	AnsweredCut:      "answered-cut",
	AnsweredProbe:    "probe-answer",
	PassForeignMAC:   "foreign-mac",
	PassGroup:        "group-mac",
	PassVLAN:         "vlan-tagged",
	PassEtherType:    "ethertype",
	PassNotOurs:      "not-ours",
	PassARP:          "arp-not-ours",
	PassNDP:          "ndp-not-ours",
	PassProtocol:     "protocol",
	DropTruncated:    "truncated",
	DropShort:        "short",
	DropIPHeader:     "ip-header",
	DropIPChecksum:   "ip-checksum",
	DropL4Header:     "l4-header",
	DropOffload:      "offload",
	DropAddress:      "address",
	DropNoConn:       "no-connection",
	DropNoServer:     "server-removed",
	DropTableFull:    "table-full",
	DropNoScheduler:  "no-server-available",
	DropNoRoute:      "no-route",
	DropNotAttached:  "interface-not-attached",
	DropUnreachable:  "next-hop-unreachable",
	DropHeldFull:     "next-hop-queue-full",
	DropHeldTimeout:  "next-hop-timeout",
	DropTTL:          "ttl",
	DropTooBig:       "too-big",
	DropRateLimit:    "answer-rate-limit",
	DropSlowPathFull: "slow-path-full",
	DropFragment:     "fragment",
	DropInner:        "inner-traffic",
	DropICMP:         "icmp-no-connection",
	DropMethod:       "method",
	DropARP:          "arp-malformed",
	DropNDP:          "ndp-malformed",
	DropFTP:          "ftp",
	DropSIP:          "no-call-id",
	DropDefence:      "drop-packet",
	DropNoMasqPort:   "no-masquerade-port",
}

// String is the verdict's name in listings and metrics.
func (v Verdict) String() string {
	if v < numVerdicts {
		return verdictNames[v]
	}
	return "invalid"
}

// Dropped says that the verdict is a drop.
func (v Verdict) Dropped() bool { return v >= firstDrop }

// Answered says that uvs dealt with the frame by itself: it replied, or had asked for it.
func (v Verdict) Answered() bool { return v >= AnsweredARP && v < firstPass }

// Passed says that the frame was none of uvs's business.
func (v Verdict) Passed() bool { return v >= firstPass && v < firstDrop }

// faultVerdict is what becomes of a frame that packet.Decode found fault with.
var faultVerdict = [packet.NumFaults]Verdict{
	packet.FaultShort:      DropShort,
	packet.FaultEtherType:  PassEtherType,
	packet.FaultIPHeader:   DropIPHeader,
	packet.FaultIPChecksum: DropIPChecksum,
	packet.FaultL4Header:   DropL4Header,
	packet.FaultAddress:    DropAddress,
}
