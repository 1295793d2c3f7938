package health

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/net/dns/dnsmessage"

	"uvs/packet"
	"uvs/service"
)

// DNS is the kind "dns": a name server must answer a question. It is asked by UDP, or by TCP for a service of TCP.
type DNS struct {
	// Query is the name that is asked about. Default the root, which every server knows something of.
	Query string `json:"query,omitempty"`
	// Type is the record's: A, AAAA, CNAME, MX, NS, PTR, SOA, SRV or TXT. Default A, and NS for the root.
	Type string `json:"type,omitempty"`
	// Rcode are the result codes that are good, with commas between them: NOERROR, NXDOMAIN, REFUSED ... Default NOERROR.
	Rcode string `json:"rcode,omitempty"`
	// Answer is what one of the records must say: an address, a name, a text. Default: anything, or nothing.
	Answer string `json:"answer,omitempty"`

	question []byte // but for its number
	asked    dnsmessage.Question
	rcodes   []dnsmessage.RCode
}

var dnsTypes = map[string]dnsmessage.Type{
	"A": dnsmessage.TypeA, "AAAA": dnsmessage.TypeAAAA, "CNAME": dnsmessage.TypeCNAME, "MX": dnsmessage.TypeMX, "NS": dnsmessage.TypeNS,
	"PTR": dnsmessage.TypePTR, "SOA": dnsmessage.TypeSOA, "SRV": dnsmessage.TypeSRV, "TXT": dnsmessage.TypeTXT,
}

var dnsRcodes = map[string]dnsmessage.RCode{
	"NOERROR": dnsmessage.RCodeSuccess, "FORMERR": dnsmessage.RCodeFormatError, "SERVFAIL": dnsmessage.RCodeServerFailure,
	"NXDOMAIN": dnsmessage.RCodeNameError, "NOTIMP": dnsmessage.RCodeNotImplemented, "REFUSED": dnsmessage.RCodeRefused,
}

// maxDNS is how long an answer without EDNS may be by UDP (RFC 1035 section 2.3.4); a longer one is taken as well.
const maxDNS = 4096

// Kind implements Prober.
func (*DNS) Kind() string { return "dns" }

// Prepare implements Prober.
func (d *DNS) Prepare() error {
	name := strings.TrimSuffix(d.Query, ".") + "."
	if d.Type = strings.ToUpper(d.Type); d.Type == "" {
		if d.Type = "A"; name == "." {
			d.Type = "NS"
		}
	}
	kind, ok := dnsTypes[d.Type]
	if !ok {
		return fmt.Errorf("type: %q is not one of %s", d.Type, strings.Join(slices.Sorted(maps.Keys(dnsTypes)), ", "))
	}
	d.rcodes = nil
	d.Rcode = cmp.Or(d.Rcode, "NOERROR")
	for word := range strings.SplitSeq(d.Rcode, ",") {
		code, ok := dnsRcodes[strings.ToUpper(strings.TrimSpace(word))]
		if !ok {
			return fmt.Errorf("rcode: %q is not one of %s", word, strings.Join(slices.Sorted(maps.Keys(dnsRcodes)), ", "))
		}
		d.rcodes = append(d.rcodes, code)
	}
	n, err := dnsmessage.NewName(name)
	if err != nil {
		return fmt.Errorf("query: %w", err)
	}
	d.asked = dnsmessage.Question{Name: n, Type: kind, Class: dnsmessage.ClassINET}
	m := dnsmessage.Message{Header: dnsmessage.Header{RecursionDesired: true}, Questions: []dnsmessage.Question{d.asked}}
	if d.question, err = m.Pack(); err != nil {
		return fmt.Errorf("query: %w", err)
	}
	return nil
}

// Probe implements Prober.
func (d *DNS) Probe(ctx context.Context, to *Target) (string, error) {
	network := "udp"
	if to.Protocol == service.TCP {
		network = "tcp"
	}
	t, err := dial(ctx, to, network)
	if err != nil {
		return "", err
	}
	defer t.close()
	id := uint16(rand.Uint32())
	q := make([]byte, 2, 2+len(d.question))
	packet.SetWord(q, uint16(len(d.question))) // by TCP its length comes first (RFC 1035 section 4.2.2)
	q = append(q, d.question...)
	packet.SetWord(q[2:], id)
	if network == "udp" {
		q = q[2:]
	}
	if _, err := t.Write(q); err != nil {
		return "", because("cannot send", err)
	}
	b := make([]byte, maxDNS)
	for range maxOthers {
		m, err := t.dnsMessage(network, b)
		if err != nil {
			return "", err
		}
		if said, ours, err := d.judge(m, id); ours {
			return said, err
		}
	}
	return "", errOthers
}

// dnsMessage reads one message into b.
func (t *talk) dnsMessage(network string, b []byte) ([]byte, error) {
	if network == "udp" {
		n, err := t.Read(b)
		if err != nil {
			return nil, because("no answer", err)
		}
		return b[:n], nil
	}
	if err := t.full(b[:2], "answer"); err != nil {
		return nil, err
	}
	n := int(packet.Word(b))
	if n > len(b) {
		return nil, fmt.Errorf("an answer of %d bytes", n)
	}
	return b[:n], t.full(b[:n], "answer")
}

// judge says what a message is worth. ours is false if it is no answer to the question with the number id.
func (d *DNS) judge(b []byte, id uint16) (said string, ours bool, err error) {
	var p dnsmessage.Parser
	h, err := p.Start(b)
	if err != nil || h.ID != id || !h.Response {
		return "", false, nil
	}
	rcode := strings.TrimPrefix(h.RCode.String(), "RCode")
	for name, code := range dnsRcodes {
		if code == h.RCode {
			rcode = name
		}
	}
	if q, err := p.AllQuestions(); err != nil || len(q) > 1 || len(q) == 1 && !sameQuestion(q[0], d.asked) || len(q) == 0 && h.RCode == dnsmessage.RCodeSuccess {
		return "", true, errors.New("the answer is to another question")
	}
	if !slices.Contains(d.rcodes, h.RCode) {
		return "", true, fmt.Errorf("%s, not %s", rcode, d.Rcode)
	}
	if d.Answer == "" {
		return rcode, true, nil
	}
	var had []string
	for {
		r, err := p.Answer()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			break
		}
		if err != nil {
			return "", true, errors.New("a record of the answer is broken")
		}
		for _, text := range recordTexts(r.Body) {
			if strings.EqualFold(strings.TrimSuffix(text, "."), strings.TrimSuffix(d.Answer, ".")) {
				return rcode + " " + text, true, nil
			}
			had = append(had, text)
		}
	}
	return "", true, fmt.Errorf("%s, but no record says %q: %s", rcode, d.Answer, printable(strings.Join(had, ", ")))
}

func sameQuestion(a, b dnsmessage.Question) bool {
	return a.Type == b.Type && a.Class == b.Class && strings.EqualFold(a.Name.String(), b.Name.String())
}

// recordTexts is what a record says, as an operator writes it.
func recordTexts(body dnsmessage.ResourceBody) []string {
	switch r := body.(type) {
	case *dnsmessage.AResource:
		return []string{netip.AddrFrom4(r.A).String()}
	case *dnsmessage.AAAAResource:
		return []string{netip.AddrFrom16(r.AAAA).String()}
	case *dnsmessage.CNAMEResource:
		return []string{r.CNAME.String()}
	case *dnsmessage.NSResource:
		return []string{r.NS.String()}
	case *dnsmessage.PTRResource:
		return []string{r.PTR.String()}
	case *dnsmessage.MXResource:
		return []string{r.MX.String()}
	case *dnsmessage.SRVResource:
		return []string{r.Target.String()}
	case *dnsmessage.SOAResource:
		return []string{fmt.Sprint(r.Serial), r.NS.String()}
	case *dnsmessage.TXTResource:
		return []string{strings.Join(r.TXT, "")}
	}
	return nil
}
