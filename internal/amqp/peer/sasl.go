package peer

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/sluice-iot/sluice/internal/amqp"
)

// Login is how a client proves itself.
type Login struct {
	Mechanism       amqp.Symbol // PLAIN, EXTERNAL or ANONYMOUS
	InitialResponse []byte
}

// PlainLogin is SASL PLAIN (RFC 4616).
func PlainLogin(user, password string) Login {
	return Login{"PLAIN", []byte("\x00" + user + "\x00" + password)}
}

// ExternalLogin is SASL EXTERNAL (RFC 4422 appendix A): the TLS certificate
// speaks for the client.
func ExternalLogin() Login { return Login{"EXTERNAL", []byte{}} }

// AuthError is a failed SASL dialogue.
type AuthError struct{ Code amqp.SASLCode }

func (e *AuthError) Error() string {
	switch e.Code {
	case amqp.SASLAuth:
		return "amqp: authentication failed"
	case amqp.SASLSysTemp:
		return "amqp: authentication is temporarily unavailable"
	default:
		return fmt.Sprintf("amqp: SASL outcome %d", e.Code)
	}
}

// Exchange is the server's side of one SASL dialogue. Step gets the client's
// initial response (nil when there was none) or its answer to the challenge; it
// returns a challenge, or the identity that the client proved to be. An error is an
// *AuthError, or else means that authentication is temporarily unavailable.
type Exchange interface {
	Step(ctx context.Context, response []byte) (challenge []byte, identity any, err error)
}

// Authenticator decides who a peer is.
type Authenticator interface {
	// Mechanisms are offered to this peer, best first; never empty.
	Mechanisms(info *PeerInfo) []amqp.Symbol
	// Begin starts a dialogue with a mechanism that was offered.
	Begin(info *PeerInfo, mechanism amqp.Symbol) (Exchange, error)
}

// Limiter is an Authenticator that bounds what a peer may have once it is known
// who it is.
type Limiter interface {
	// Limit lowers what is announced and allowed on the connection of identity:
	// ChannelMax, HandleMax, LinkMax and MaxMessageSize, and sets Answer. It is called before the
	// open is answered, with the connection locked.
	Limit(identity any, c *Config)
}

type saslState struct {
	mechanisms []amqp.Symbol
	login      Login
	refuse     bool
	chosen     amqp.Symbol
	response   []byte // what the owner has to look at
	first      bool
	steps      int
}

// maxSASLSteps bounds a dialogue; SCRAM needs two.
const maxSASLSteps = 4

func (e *Engine) offer() {
	e.write(func(b []byte) []byte { return append(b, amqp.HeaderSASL...) })
	e.writeFrame(amqp.FrameSASL, 0, &amqp.SASLMechanisms{Mechanisms: e.sasl.mechanisms})
}

func (e *Engine) saslFrame(f amqp.Frame) error {
	if f.Type != amqp.FrameSASL {
		if e.server {
			e.saslEnd(amqp.SASLAuth)
		}
		return &amqp.FrameError{Reason: "AMQP frame before the SASL dialogue ended"}
	}
	p, _, err := amqp.DecodePerformative(f.Body)
	if err != nil {
		return err
	}
	switch p := p.(type) {
	case *amqp.SASLInit:
		if e.server && e.sasl.chosen == "" {
			return e.saslInit(p)
		}
	case *amqp.SASLResponse:
		if e.server && e.sasl.chosen != "" {
			e.sasl.response, e.sasl.first = append([]byte{}, p.Response...), false
			e.phase = phaseSASLWait
			return nil
		}
	case *amqp.SASLMechanisms:
		if !e.server && e.sasl.chosen == "" {
			return e.saslChoose(p)
		}
	case *amqp.SASLOutcome:
		if !e.server && e.sasl.chosen != "" {
			return e.saslOutcome(p)
		}
	}
	return &amqp.FrameError{Reason: fmt.Sprintf("%T is out of place in the SASL dialogue", p)}
}

func (e *Engine) saslInit(p *amqp.SASLInit) error {
	if e.sasl.refuse || !slices.Contains(e.sasl.mechanisms, p.Mechanism) {
		e.saslEnd(amqp.SASLAuth)
		return &AuthError{amqp.SASLAuth}
	}
	e.sasl.chosen = p.Mechanism
	if p.InitialResponse != nil {
		e.sasl.response = append([]byte{}, p.InitialResponse...)
	}
	e.sasl.first = true
	e.phase = phaseSASLWait
	return nil
}

func (e *Engine) saslEnd(code amqp.SASLCode) {
	e.writeFrame(amqp.FrameSASL, 0, &amqp.SASLOutcome{Code: code})
	if code != amqp.SASLOK {
		e.phase = phaseClosed
		return
	}
	e.phase = phaseAMQPHeader
}

// Challenge sends the next challenge; the peer's answer comes as another step.
func (e *Engine) Challenge(challenge []byte) {
	e.writeFrame(amqp.FrameSASL, 0, &amqp.SASLChallenge{Challenge: challenge})
	e.phase = phaseSASL
}

// Authenticated ends the dialogue: with success when err is nil.
func (e *Engine) Authenticated(err error) {
	e.sasl.response = nil
	switch auth := (*AuthError)(nil); {
	case err == nil:
		e.saslEnd(amqp.SASLOK)
	case errors.As(err, &auth):
		e.saslEnd(auth.Code)
	default:
		e.saslEnd(amqp.SASLSysTemp)
	}
}

func (e *Engine) saslChoose(p *amqp.SASLMechanisms) error {
	if !slices.Contains(p.Mechanisms, e.sasl.login.Mechanism) {
		return fmt.Errorf("peer offers SASL %v, not %s: %w", p.Mechanisms, e.sasl.login.Mechanism, &AuthError{amqp.SASLAuth})
	}
	e.sasl.chosen = e.sasl.login.Mechanism
	e.writeFrame(amqp.FrameSASL, 0, &amqp.SASLInit{
		Mechanism:       e.sasl.login.Mechanism,
		InitialResponse: e.sasl.login.InitialResponse,
		Hostname:        e.cfg.Hostname,
	})
	return nil
}

func (e *Engine) saslOutcome(p *amqp.SASLOutcome) error {
	if p.Code != amqp.SASLOK {
		return &AuthError{p.Code}
	}
	e.sasl.login = Login{} // the secret is not needed again
	e.phase = phaseAMQPHeader
	e.write(func(b []byte) []byte { return append(b, amqp.HeaderAMQP...) })
	e.writeOpen()
	return nil
}
