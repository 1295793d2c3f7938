package decap

// Verdict is how a tunnelled packet ended. Every packet received ends in exactly one: the counts add up.
type Verdict uint8

// The verdicts.
const (
	Delivered        Verdict = iota // the packet inside is the host's stack's now
	PassInterface                   // came in by another interface than the one asked for
	PassNotLocal                    // its tunnel ends at another host: this one is a router on its way
	PassFragment                    // a fragment that no allowed director sent
	Gathered                        // a fragment of a tunnelled IPv6 packet that waits for the rest, or was followed by it
	DropTruncated                   // bytes were missing when the kernel handed it over
	DropOuterHeader                 // the outer IP header lies or its checksum is wrong
	DropFragment                    // a fragment of a tunnelled packet: the rest never came, or, in IPv4, the kernel didn't put it together
	DropProtocol                    // no kind of tunnel that is known here
	DropTunnelHeader                // the GRE, UDP or GUE header lies, or says what no director would
	DropChecksum                    // the checksum of GRE or GUE is wrong
	DropDirector                    // the tunnel begins at an address that is no allowed director
	DropInnerHeader                 // the inner IP header lies or its checksum is wrong
	DropSource                      // inner source address that cannot be a client's
	DropNotVIP                      // to none of the virtual addresses
	DropCongestion                  // marked as congested on its way through the tunnel, and its sender doesn't know of such marks
	DropOffload                     // the virtio-net header contradicts the packet
	DropDevice                      // the TUN device didn't take it
	numVerdicts
)

var verdictNames = [numVerdicts]string{
	Delivered:        "delivered",
	PassInterface:    "other-interface",
	PassNotLocal:     "not-local",
	PassFragment:     "other-fragment",
	Gathered:         "gathered",
	DropTruncated:    "truncated",
	DropOuterHeader:  "outer-header",
	DropFragment:     "fragment",
	DropProtocol:     "protocol",
	DropTunnelHeader: "tunnel-header",
	DropChecksum:     "checksum",
	DropDirector:     "director-not-allowed",
	DropInnerHeader:  "inner-header",
	DropSource:       "inner-source",
	DropNotVIP:       "not-a-vip",
	DropCongestion:   "congestion",
	DropOffload:      "offload-header",
	DropDevice:       "device",
}

// String is the verdict's name in logs.
func (v Verdict) String() string { return verdictNames[v] }
