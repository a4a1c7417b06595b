package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	goamqp "github.com/Azure/go-amqp"
	"github.com/spf13/pflag"

	"github.com/sluice-iot/sluice/router/manage"
)

// managementTimeout bounds one request to a router.
const managementTimeout = 30 * time.Second

// routerFlags say which router to ask, and as whom.
type routerFlags struct{ loginFlags }

const routerFlagsHelp = `
On the machine of an installation the router, the user, the password and the CA
are found in operator.env of its data folder: --data, SLUICE_DATA, ./data or the
XDG data folder. Elsewhere give --url, --user and --password, or
SLUICE_ROUTER_URL, SLUICE_ROUTER_USER and SLUICE_ROUTER_PASSWORD. An identity
for it is made by

  sluice identity add NAME --read '$management' --write '$management' --execute '$management:DELETE'`

// mayManage are the rights of who looks at a router, mayClose further ones of who
// closes its connections.
const (
	mayManage = "--read '" + manage.Address + "' --write '" + manage.Address + "'"
	mayClose  = "--execute '" + manage.Address + ":" + manage.Delete + "'"
)

func (f *routerFlags) add(flags *pflag.FlagSet) {
	f.loginFlags.add(flags, "router, such as amqps://host:15671 (default "+defaultNorthbound+")", "`name` of an identity that may manage the router", "its `secret`", "amqps")
}

func (f *routerFlags) complete() error {
	return f.loginFlags.complete("SLUICE_ROUTER_", defaultNorthbound)
}

// routerConn is an open way to a router's management node.
type routerConn struct {
	conn     *goamqp.Conn
	sender   *goamqp.Sender
	receiver *goamqp.Receiver
	next     int
}

func (f *routerFlags) open(ctx context.Context) (_ *routerConn, err error) {
	conn, err := f.dial(ctx, "sluice-router-command")
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", f.url, plainError(err))
	}
	defer func() {
		if err != nil {
			conn.Close()
			refused := notGranted(err)
			if err = fmt.Errorf("%s at %s: %w", manage.Address, f.url, plainError(err)); refused {
				err = f.grantable(fmt.Errorf("%s may not manage the router: %w", f.user, err), mayManage)
			}
		}
	}()
	session, err := conn.NewSession(ctx, nil)
	if err != nil {
		return nil, err
	}
	receiver, err := session.NewReceiver(ctx, "", &goamqp.ReceiverOptions{DynamicAddress: true, Credit: 10})
	if err != nil {
		return nil, err
	}
	sender, err := session.NewSender(ctx, manage.Address, nil)
	if err != nil {
		return nil, err
	}
	return &routerConn{conn: conn, sender: sender, receiver: receiver}, nil
}

func (m *routerConn) close() { m.conn.Close() }

// ask sends a request and waits for its reply.
func (m *routerConn) ask(ctx context.Context, properties map[string]any, body any) (*goamqp.Message, error) {
	ctx, cancel := context.WithTimeout(ctx, managementTimeout)
	defer cancel()
	m.next++
	id, replyTo := strconv.Itoa(m.next), m.receiver.Address()
	err := m.sender.Send(ctx, &goamqp.Message{
		Properties:            &goamqp.MessageProperties{MessageID: id, ReplyTo: &replyTo},
		ApplicationProperties: properties, Value: body,
	}, nil)
	if err != nil {
		return nil, plainError(err)
	}
	for {
		reply, err := m.receiver.Receive(ctx, nil)
		if err != nil {
			return nil, plainError(err)
		}
		if err := m.receiver.AcceptMessage(ctx, reply); err != nil {
			return nil, plainError(err)
		}
		if reply.Properties == nil || reply.Properties.CorrelationID != id {
			continue // of a request that was given up
		}
		return reply, statusError(reply)
	}
}

func statusError(reply *goamqp.Message) error {
	code, ok := reply.ApplicationProperties["statusCode"].(int32)
	if !ok {
		return errors.New("the reply carries no statusCode: is this a Sluice router?")
	}
	if code >= 200 && code < 300 {
		return nil
	}
	return &apiError{int(code), oneLine(fmt.Sprint(reply.ApplicationProperties["statusDescription"]))}
}

// entities asks for all entities of a type, page by page.
func (m *routerConn) entities(ctx context.Context, kind string) (names []string, rows [][]any, err error) {
	for offset := int32(0); ; {
		reply, err := m.ask(ctx, map[string]any{"operation": manage.Query, "entityType": kind, "offset": offset}, nil)
		if err != nil {
			return nil, nil, err
		}
		body, _ := reply.Value.(map[string]any)
		if body == nil {
			return nil, nil, fmt.Errorf("the reply holds a %T; expected a map", reply.Value)
		}
		names = names[:0]
		for _, n := range asList(body["attributeNames"]) {
			names = append(names, fmt.Sprint(n))
		}
		for _, row := range asList(body["results"]) {
			values := asList(row)
			if len(values) != len(names) {
				return nil, nil, fmt.Errorf("the reply has %d values for %d attributes", len(values), len(names))
			}
			rows = append(rows, values)
		}
		count, _ := reply.ApplicationProperties["count"].(int32)
		total, _ := reply.ApplicationProperties["total"].(int64)
		if offset += count; count <= 0 || int64(offset) >= total {
			return names, rows, nil
		}
	}
}

func asList(v any) []any {
	switch v := v.(type) {
	case []any:
		return v
	case []string:
		out := make([]any, len(v))
		for i, s := range v {
			out[i] = s
		}
		return out
	}
	return nil
}
