package e2e

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"uvs/lab"
)

// Mail goes in by SMTP and comes out by POP3. Both real servers keep it in one place, as clusters do.

// mailBytes is the size of a checked message's content, before it's written in base64.
const mailBytes = 300 << 10

// smtpApp is Exim with msmtp.
var smtpApp = app{
	name:  "exim",
	ports: []appPort{{number: 25}},
	serve: serveExim,
	check: func(t *testing.T, c *cell) {
		for i := range checkedMails {
			c.sendMail(t, c.mailbox(), c.mail(t, i))
		}
	},
	measure: func(t *testing.T, c *cell) {
		const clients, each = 8, 3 // Exim 4.96 takes a fifth of a second for every QUIT
		start := time.Now()
		var all sync.WaitGroup
		for range clients {
			all.Go(func() {
				for range each {
					if err := c.trySendMail(t, "rate", []byte("Subject: short\r\n\r\nshort\r\n")); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		c.report(fmt.Sprintf("exim: msmtp, %d clients, messages", clients), "%.0f /s", clients*each/time.Since(start).Seconds())
	},
}

// checkedMails is how many messages are compared: some by each real server.
const checkedMails = 4

const eximConf = `
primary_hostname = {NAME}.test
spool_directory = {DIR}/spool
log_file_path = {DIR}/spool/%slog
pid_file_path = {DIR}/exim.pid
local_interfaces = <; 0.0.0.0 ; ::0
daemon_smtp_ports = {PORT}
domainlist local_domains = cluster.test
acl_smtp_rcpt = all
acl_smtp_data = all
host_lookup =
tls_advertise_hosts =
rfc1413_query_timeout = 0s
deliver_drop_privilege
keep_environment =
message_size_limit = 10M
begin acl
all:
  accept
begin routers
here:
  driver = accept
  domains = +local_domains
  local_parts = checked-ipv4 : checked-ipv6 : rate
  transport = maildir
begin transports
maildir:
  driver = appendfile
  directory = {MAIL}/$local_part_data
  maildir_format
  create_directory
  delivery_date_add
`

func serveExim(t *testing.T, s *station) {
	owner := mailUser(t)
	if owner == nil {
		return
	}
	conf := s.file(t, "exim.conf", eximConf, "{PORT}", s.port(25), "{MAIL}", s.cell.mailDir)
	s.directory(t, "spool", owner)
	s.logsOf(t, "spool/mainlog")
	s.start(t, nil, "exim4", "-C", conf, "-bdf", "-q1h")
}

// mailUser is who Exim delivers as, and so whom the mail belongs to.
func mailUser(t *testing.T) *user.User {
	u, err := user.Lookup("Debian-exim")
	if err != nil {
		t.Error(err)
	}
	return u
}

// mailbox is where the checked messages of a family lie.
func (c *cell) mailbox() string { return "checked-" + strings.ToLower(c.family()) }

// mail is message number i, as long as it should be for a check.
func (c *cell) mail(t *testing.T, i int) []byte {
	t.Helper()
	content, err := io.ReadAll(io.LimitReader(lab.Content(uint64(100+i)), mailBytes))
	must(t, err)
	var b bytes.Buffer
	fmt.Fprintf(&b, "From: <sender@client.test>\r\nTo: <%s@cluster.test>\r\nSubject: number %d\r\n\r\n", c.mailbox(), i)
	for text := base64.StdEncoding.EncodeToString(content); text != ""; {
		n := min(76, len(text))
		fmt.Fprintf(&b, "%s\r\n", text[:n])
		text = text[n:]
	}
	return b.Bytes()
}

// sendMail sends a message to a mailbox.
func (c *cell) sendMail(t *testing.T, mailbox string, message []byte) {
	t.Helper()
	must(t, c.trySendMail(t, mailbox, message))
}

func (c *cell) trySendMail(t *testing.T, mailbox string, message []byte) error {
	_, err := c.try(t, message, "msmtp", "--file=/dev/null", "--host="+c.VIP().String(), "--port=25", "--from=sender@client.test", "--tls=off",
		"--auth=off", "--timeout=8", "--", mailbox+"@cluster.test")
	return err
}

// pop3App is Dovecot with curl.
var pop3App = app{
	name:  "dovecot",
	ports: []appPort{{number: 110}},
	serve: serveDovecot,
	check: func(t *testing.T, c *cell) {
		c.awaitMail(t, c.mailbox(), checkedMails)
		want := map[string]bool{}
		for i := range checkedMails {
			want[string(c.mail(t, i))] = true
		}
		for i := range checkedMails {
			got := c.pop3(t, c.mailbox(), fmt.Sprint(i+1))
			// The servers have put lines of their own before it.
			at := bytes.Index(got, []byte("From: <sender@client.test>"))
			if at < 0 || !want[string(got[at:])] {
				t.Errorf("message %d isn't one that was sent, or comes twice: %d bytes", i+1, len(got))
				continue
			}
			delete(want, string(got[at:]))
		}
	},
	measure: func(t *testing.T, c *cell) {
		const n = 20
		start := time.Now()
		for range n {
			c.pop3(t, c.mailbox(), "1")
		}
		c.report("dovecot: curl, messages of 400 kB", "%.0f /s", n/time.Since(start).Seconds())
	},
}

const dovecotConf = `
protocols = pop3
listen = *, ::
base_dir = {DIR}/dovecot
log_path = /dev/stderr
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain
first_valid_uid = 1
mail_uid = {UID}
mail_gid = {GID}
mail_location = maildir:{MAIL}/%n:INDEX=MEMORY:CONTROL={DIR}/control-%n
mail_fsync = never
maildir_very_dirty_syncs = no
login_trusted_networks =
passdb {
  driver = static
  args = password=secret
}
userdb {
  driver = static
  args = uid={UID} gid={GID} home={MAIL}/%n
}
service pop3-login {
  inet_listener pop3 {
    port = {PORT}
  }
  inet_listener pop3s {
    port = 0
  }
}
service anvil {
  chroot =
}
service pop3-login {
  chroot =
}
`

func serveDovecot(t *testing.T, s *station) {
	owner := mailUser(t)
	if owner == nil {
		return
	}
	for _, c := range []*cell{s.cell, s.cell.over6()} {
		s.directory(t, "control-"+c.mailbox(), owner)
	}
	conf := s.file(t, "dovecot.conf", dovecotConf, "{PORT}", s.port(110), "{MAIL}", s.cell.mailDir, "{UID}", owner.Uid, "{GID}", owner.Gid)
	s.start(t, nil, "dovecot", "-F", "-c", conf)
}

// directory makes a directory for a server that runs as another user.
func (s *station) directory(t *testing.T, name string, owner *user.User) {
	if err := makeOwned(filepath.Join(s.dir, name), owner); err != nil {
		t.Error(err)
	}
}

// pop3 retrieves a message, or the list with an empty number.
func (c *cell) pop3(t *testing.T, mailbox, number string) []byte {
	t.Helper()
	return c.run(t, nil, "curl", "-sS", "--max-time", "8", "--user", mailbox+":secret", strings.Replace(c.url(), "http:", "pop3:", 1)+"/"+number)
}

// awaitMail waits until n messages are in a mailbox: Exim delivers after it has said yes.
func (c *cell) awaitMail(t *testing.T, mailbox string, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d messages are there", n), func() (bool, any) {
		list := strings.Fields(string(c.pop3(t, mailbox, "")))
		if len(list) < 2*n {
			return false, list
		}
		last, err := strconv.Atoi(list[2*(n-1)])
		return err == nil && last == n, list
	})
}
