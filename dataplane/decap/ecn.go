package decap

// The values of the ECN field, the lower two bits of the type of service (RFC 3168 section 5).
const (
	notECT = 0 // the sender knows nothing of congestion marks
	ect1   = 1
	ect0   = 2
	ce     = 3 // congestion experienced
)

const lost = 0xff // in place of a value: drop the packet

// ecn is figure 4 of RFC 6040: the field of the outgoing packet by that of the inner and that of the outer header. A mark
// made in the tunnel must reach the receiver; if the sender's transport knows no marks, only loss tells it of congestion.
var ecn = [4][4]uint8{
	//        outer: notECT, ect1, ect0, ce
	notECT: {notECT, notECT, notECT, lost},
	ect1:   {ect1, ect1, ect1, ce},
	ect0:   {ect0, ect1, ect0, ce},
	ce:     {ce, ce, ce, ce},
}

// decapsulateECN returns the type of service of a packet that leaves a tunnel: the inner header's, with the congestion
// mark of both. ok is false if the packet must be dropped.
func decapsulateECN(inner, outer uint8) (tos uint8, ok bool) {
	field := ecn[inner&3][outer&3]
	return inner&^3 | field, field != lost
}
