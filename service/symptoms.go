package service

// Symptoms are what packets tell of a real server's health, counted while connections begin: what the packet path sees anyway.
// Clients can cause any of them, so they are reason to ask the server and never to take it out of service. All wrap around.
type Symptoms struct {
	// Opened are TCP connections whose first packet, a SYN, went to the server.
	Opened uint32
	// Answered are signs that it answered: that a client's second segment is no SYN, and the server's own where the director
	// sees them.
	Answered uint32
	// Repeated are SYNs that clients sent again.
	Repeated uint32
	// Refused are its resets among a connection's first packets; the director sees NAT's.
	Refused uint32
	// Unreachable are packets to it that there was no way for: ICMP errors say so, or ARP and neighbour discovery.
	Unreachable uint32
}

// Add adds d to s.
func (s *Symptoms) Add(d Symptoms) {
	s.Opened += d.Opened
	s.Answered += d.Answered
	s.Repeated += d.Repeated
	s.Refused += d.Refused
	s.Unreachable += d.Unreachable
}

// Since is what s has more than old.
func (s Symptoms) Since(old Symptoms) Symptoms {
	return Symptoms{
		Opened: s.Opened - old.Opened, Answered: s.Answered - old.Answered, Repeated: s.Repeated - old.Repeated,
		Refused: s.Refused - old.Refused, Unreachable: s.Unreachable - old.Unreachable,
	}
}
