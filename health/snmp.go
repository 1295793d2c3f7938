package health

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/gosnmp/gosnmp"
)

// SNMP is the kind "snmp": it reads the real server's load by SNMP and gives it less of its weight the busier it is. A server whose
// agent doesn't answer keeps what it had: another check is to find out whether it serves. The port is 161 unless set.
type SNMP struct {
	// Version is 2c, which is the default, 1 or 3.
	Version string `json:"version,omitempty"`
	// Community is versions 1's and 2c's password; default public.
	Community string `json:"community,omitempty"`
	// User is version 3's; with AuthPassword messages are signed (Auth: SHA, the default, SHA256, SHA512 or MD5), with PrivPassword
	// encrypted as well (Priv: AES, the default, or DES).
	User         string `json:"user,omitempty"`
	Auth         string `json:"auth,omitempty"`
	AuthPassword string `json:"authpassword,omitempty"`
	Priv         string `json:"priv,omitempty"`
	PrivPassword string `json:"privpassword,omitempty"`
	// Measure is what is read. "load", the default: the load average of the last minute (UCD-SNMP-MIB's laLoad.1), whose share is
	// 1/(1+load per CPU). "cpu": the average of all processors' load in percent (HOST-RESOURCES-MIB's hrProcessorLoad), whose share
	// is what is left. "oid": the numbers of OID.
	Measure string `json:"measure,omitempty"`
	// CPUs is how many processors the load average is of; default what the server says (the rows of hrProcessorLoad), or 1.
	CPUs int `json:"cpus,omitempty"`
	// OID is one object, or a table's column, which is averaged, with measure=oid.
	OID string `json:"oid,omitempty"`
	// Full is the value at which nothing is left, and Idle the one at which all is, with measure=oid; defaults 100 and 0. Full may
	// be the lower one, as for free memory.
	Full float64 `json:"full,omitempty"`
	Idle float64 `json:"idle,omitempty"`
	// Required makes an agent that doesn't answer a reason for the server to be down.
	Required bool `json:"required,omitempty"`
	Weighing

	version gosnmp.SnmpVersion
	auth    gosnmp.SnmpV3AuthProtocol
	priv    gosnmp.SnmpV3PrivProtocol
}

const (
	oidLoad       = ".1.3.6.1.4.1.2021.10.1.3.1"
	oidProcessors = ".1.3.6.1.2.1.25.3.3.1.2"
	maxRows       = 4096 // of a table
)

var (
	snmpVersions = map[string]gosnmp.SnmpVersion{"1": gosnmp.Version1, "2c": gosnmp.Version2c, "3": gosnmp.Version3}
	snmpAuth     = map[string]gosnmp.SnmpV3AuthProtocol{"SHA": gosnmp.SHA, "SHA256": gosnmp.SHA256, "SHA512": gosnmp.SHA512, "MD5": gosnmp.MD5}
	snmpPriv     = map[string]gosnmp.SnmpV3PrivProtocol{"AES": gosnmp.AES, "DES": gosnmp.DES}
)

// Kind implements Prober.
func (*SNMP) Kind() string { return "snmp" }

// DirectOnly implements DirectOnly.
func (*SNMP) DirectOnly() {}

// DefaultPort implements PortOfItsOwn.
func (*SNMP) DefaultPort() uint16 { return 161 }

// Prepare implements Prober.
func (s *SNMP) Prepare() error {
	var ok bool
	orElse := func(v *string, d string) {
		if *v == "" {
			*v = d
		}
	}
	orElse(&s.Version, "2c")
	orElse(&s.Community, "public")
	orElse(&s.Auth, "SHA")
	orElse(&s.Priv, "AES")
	orElse(&s.Measure, "load")
	if s.Full == 0 && s.Idle == 0 {
		s.Full = 100
	}
	if s.version, ok = snmpVersions[s.Version]; !ok {
		return fmt.Errorf("version: %q: it is 1, 2c or 3", s.Version)
	}
	if s.auth, ok = snmpAuth[strings.ToUpper(s.Auth)]; !ok {
		return fmt.Errorf("auth: %q: it is SHA, SHA256, SHA512 or MD5", s.Auth)
	}
	if s.priv, ok = snmpPriv[strings.ToUpper(s.Priv)]; !ok {
		return fmt.Errorf("priv: %q: it is AES or DES", s.Priv)
	}
	switch {
	case s.version == gosnmp.Version3 && s.User == "":
		return errors.New("user: version 3 wants one")
	case s.PrivPassword != "" && s.AuthPassword == "":
		return errors.New("privpassword: what is encrypted must be signed: authpassword is missing")
	case s.CPUs < 0 || s.CPUs > 1<<20:
		return fmt.Errorf("cpus: %d: it is a number of processors", s.CPUs)
	case s.Measure != "load" && s.Measure != "cpu" && s.Measure != "oid":
		return fmt.Errorf("measure: %q: it is load, cpu or oid", s.Measure)
	case (s.Measure == "oid") != (s.OID != ""):
		return errors.New("oid: it is wanted with measure=oid, and only there")
	case s.OID != "" && !isOID(s.OID):
		return fmt.Errorf("oid: %q: it is numbers with dots between", s.OID)
	case s.Full == s.Idle || math.IsNaN(s.Full) || math.IsInf(s.Full, 0) || math.IsNaN(s.Idle) || math.IsInf(s.Idle, 0):
		return errors.New("full: it differs from idle")
	}
	return s.prepareWeighing()
}

// isOID says that a text is an object identifier in numbers.
func isOID(text string) bool {
	parts := strings.Split(strings.TrimPrefix(text, "."), ".")
	for _, p := range parts {
		if _, err := strconv.ParseUint(p, 10, 32); err != nil {
			return false
		}
	}
	return len(parts) >= 2 && len(parts) <= 128
}

// Probe implements Prober.
func (s *SNMP) Probe(ctx context.Context, to *Target) (string, error) {
	said, asked, err := s.ask(ctx, to)
	switch {
	case err == nil:
		return fmt.Sprintf("%s: gets %s", said, percent(s.weigh(to, asked))), nil
	case s.Required:
		return "", err
	}
	if share, known := s.weighAsBefore(to); known {
		return fmt.Sprintf("no word by SNMP (%v): %s as before", err, percent(share)), nil
	}
	return fmt.Sprintf("no word by SNMP: %v", err), nil
}

// ask reads what is measured and returns the share that follows.
func (s *SNMP) ask(ctx context.Context, to *Target) (said string, share float64, err error) {
	client, err := s.connect(ctx, to)
	if err != nil {
		return "", 0, err
	}
	defer client.Close()
	switch s.Measure {
	case "cpu":
		busy, _, err := average(client, oidProcessors)
		return fmt.Sprintf("processors %.0f%% busy", busy), atLeastSome(1 - busy/100), err
	case "oid":
		v, _, err := average(client, s.OID)
		return fmt.Sprintf("%s is %g", s.OID, v), atLeastSome((s.Full - v) / (s.Full - s.Idle)), err
	}
	load, _, err := average(client, oidLoad)
	if err != nil {
		return "", 0, err
	}
	cpus := s.CPUs
	if cpus == 0 {
		if _, cpus, err = average(client, oidProcessors); err != nil {
			cpus = 1
		}
	}
	return fmt.Sprintf("load %.2f, processors %d", load, cpus), atLeastSome(1 / (1 + max(load, 0)/float64(cpus))), nil
}

// atLeastSome is a share that isn't 0, which would drain a server that is merely busy.
func atLeastSome(share float64) float64 { return max(share, 0.001) }

// connect returns a client that asks by a connection of the target's.
func (s *SNMP) connect(ctx context.Context, to *Target) (*gosnmp.GoSNMP, error) {
	timeout := 2 * time.Second
	if deadline, ok := ctx.Deadline(); ok {
		timeout = time.Until(deadline)
	}
	client := &gosnmp.GoSNMP{
		Target: to.Address.Addr().String(), Port: to.Address.Port(), Transport: "udp", Community: s.Community, Version: s.version,
		Timeout: max(timeout/2, time.Millisecond), Retries: 1, MaxOids: gosnmp.MaxOids, MaxRepetitions: 20, Context: ctx,
	}
	if s.version == gosnmp.Version3 {
		params := &gosnmp.UsmSecurityParameters{UserName: s.User, AuthenticationProtocol: gosnmp.NoAuth, PrivacyProtocol: gosnmp.NoPriv}
		client.SecurityModel, client.MsgFlags = gosnmp.UserSecurityModel, gosnmp.NoAuthNoPriv
		if s.AuthPassword != "" {
			params.AuthenticationProtocol, params.AuthenticationPassphrase, client.MsgFlags = s.auth, s.AuthPassword, gosnmp.AuthNoPriv
		}
		if s.PrivPassword != "" {
			params.PrivacyProtocol, params.PrivacyPassphrase, client.MsgFlags = s.priv, s.PrivPassword, gosnmp.AuthPriv
		}
		client.SecurityParameters = params
	}
	c, err := to.Dial(ctx, "udp")
	if err != nil {
		return nil, err
	}
	if err := client.Connect(); err != nil { // it opens a socket, which sends nothing, and prepares the rest
		c.Close()
		return nil, err
	}
	client.Conn.Close()
	client.Conn = recordedConn{c, to}
	return client, nil
}

// average reads one object, or averages a column, and says how many rows there were.
func average(client *gosnmp.GoSNMP, oid string) (mean float64, rows int, err error) {
	var sum float64
	take := func(pdu gosnmp.SnmpPDU) error {
		v, err := number(pdu)
		if err != nil {
			return err
		}
		if rows++; rows > maxRows {
			return fmt.Errorf("%s has more than %d rows", oid, maxRows)
		}
		sum += v
		return nil
	}
	got, err := client.Get([]string{oid})
	switch {
	case err != nil:
		return 0, 0, err
	case got.Error == gosnmp.NoError && len(got.Variables) == 1 && there(got.Variables[0]):
		err = take(got.Variables[0])
	case client.Version == gosnmp.Version1:
		err = client.Walk(oid, take)
	default:
		err = client.BulkWalk(oid, take)
	}
	if err == nil && rows == 0 {
		err = fmt.Errorf("the server has no %s", oid)
	}
	return sum / float64(max(rows, 1)), rows, err
}

// there says that an answer has a value.
func there(pdu gosnmp.SnmpPDU) bool {
	switch pdu.Type {
	case gosnmp.NoSuchObject, gosnmp.NoSuchInstance, gosnmp.EndOfMibView, gosnmp.Null:
		return false
	}
	return true
}

// number is a value as a number, which may be written as text, as laLoad is.
func number(pdu gosnmp.SnmpPDU) (v float64, err error) {
	switch x := pdu.Value.(type) {
	case []byte:
		if v, err = strconv.ParseFloat(strings.TrimSpace(string(x[:min(len(x), 40)])), 64); err != nil {
			return 0, fmt.Errorf("%s is %q, no number", pdu.Name, shorten60(string(x)))
		}
	case float32:
		v = float64(x)
	case float64:
		v = x
	case int, uint, int64, uint64, uint32, int32:
		v, _ = gosnmp.ToBigInt(x).Float64()
	default:
		return 0, fmt.Errorf("%s is no number", pdu.Name)
	}
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return 0, fmt.Errorf("%s is no finite number", pdu.Name)
	}
	return v, nil
}

// recordedConn tells the target of what is sent and received.
type recordedConn struct {
	net.Conn
	to *Target
}

func (c recordedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.to.record(false, b[:n])
	return n, err
}

func (c recordedConn) Write(b []byte) (int, error) {
	c.to.record(true, b)
	return c.Conn.Write(b)
}
