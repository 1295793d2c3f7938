package conntrack

// State is where a connection stands in its protocol. TCP's are the kernel's numbers (ip_vs.h, IP_VS_TCP_S_*); those of
// other protocols follow.
type State uint8

// The states.
const (
	None            State = iota // before the first packet
	Established                  // both ways open
	SynSent                      // the server opened
	SynRecv                      // the client opened
	FinWait                      // the server closed, or the client where the server isn't seen
	TimeWait                     // both closed
	Close                        // reset
	CloseWait                    // the client closed
	LastAck                      // the kernel's table has it, no packet leads to it
	Listen                       // likewise
	SynAck                       // secure_tcp: SYN seen, handshake not yet believed
	UDPNormal                    // UDP has this state alone
	TemplateNone                 // a template none of whose connections was established
	TemplateAssured              // a template one of whose connections was
	NumStates
)

const numTCPStates = int(SynAck) + 1

var stateNames = [NumStates]string{
	"NONE", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT", "TIME_WAIT", "CLOSE", "CLOSE_WAIT", "LAST_ACK", "LISTEN",
	"SYNACK", "UDP", "NONE", "ASSURED",
}

// String is the name in /proc/net/ip_vs_conn and ipvsadm -Lc.
func (s State) String() string {
	if s < NumStates {
		return stateNames[s]
	}
	return "ERR!"
}
