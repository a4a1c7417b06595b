package amqp

// SASLCode is the outcome of a SASL dialogue (Part 5, section 5.3.3.6).
type SASLCode uint8

// The SASL outcomes: ok; authentication failed; system error; permanent and
// temporary system error.
const (
	SASLOK      SASLCode = 0
	SASLAuth    SASLCode = 1
	SASLSys     SASLCode = 2
	SASLSysPerm SASLCode = 3
	SASLSysTemp SASLCode = 4
)

// The SASL frames (Part 5, section 5.3.3).
type (
	// SASLMechanisms announces what the server offers.
	SASLMechanisms struct{ Mechanisms []Symbol }
	// SASLInit is the client's choice.
	SASLInit struct {
		Mechanism       Symbol
		InitialResponse []byte // nil = none
		Hostname        string
	}
	// SASLChallenge is the server's challenge.
	SASLChallenge struct{ Challenge []byte }
	// SASLResponse answers a challenge.
	SASLResponse struct{ Response []byte }
	// SASLOutcome ends the dialogue.
	SASLOutcome struct {
		Code           SASLCode
		AdditionalData []byte
	}
)

func (*SASLMechanisms) descriptor() Descriptor { return DescSASLMechanisms }
func (*SASLInit) descriptor() Descriptor       { return DescSASLInit }
func (*SASLChallenge) descriptor() Descriptor  { return DescSASLChallenge }
func (*SASLResponse) descriptor() Descriptor   { return DescSASLResponse }
func (*SASLOutcome) descriptor() Descriptor    { return DescSASLOutcome }

func (p *SASLMechanisms) decode(f *fields) {
	*p = SASLMechanisms{}
	if f.must("sasl-mechanisms.sasl-server-mechanisms") {
		p.Mechanisms = f.r.symbols()
	}
}

func (p *SASLInit) decode(f *fields) {
	*p = SASLInit{}
	if f.must("sasl-init.mechanism") {
		p.Mechanism = f.r.symbol()
	}
	if f.next("sasl-init.initial-response") {
		p.InitialResponse = f.r.binary()
	}
	p.Hostname = f.stringField("sasl-init.hostname")
}

func (p *SASLChallenge) decode(f *fields) {
	*p = SASLChallenge{}
	if f.must("sasl-challenge.challenge") {
		p.Challenge = f.r.binary()
	}
}

func (p *SASLResponse) decode(f *fields) {
	*p = SASLResponse{}
	if f.must("sasl-response.response") {
		p.Response = f.r.binary()
	}
}

func (p *SASLOutcome) decode(f *fields) {
	*p = SASLOutcome{}
	if f.must("sasl-outcome.code") {
		p.Code = SASLCode(f.r.ubyte())
	}
	if f.next("sasl-outcome.additional-data") {
		p.AdditionalData = f.r.binary()
	}
}

// Append implements [Performative].
func (p *SASLMechanisms) Append(b []byte) []byte {
	l := listOf(b, DescSASLMechanisms)
	l.set(AppendSymbols(l.b, p.Mechanisms))
	return l.done()
}

// Append implements [Performative].
func (p *SASLInit) Append(b []byte) []byte {
	l := listOf(b, DescSASLInit)
	l.set(AppendSymbol(l.b, p.Mechanism))
	l.binary(p.InitialResponse)
	l.string(p.Hostname, p.Hostname != "")
	return l.done()
}

// Append implements [Performative].
func (p *SASLChallenge) Append(b []byte) []byte {
	l := listOf(b, DescSASLChallenge)
	l.set(AppendBinary(l.b, p.Challenge))
	return l.done()
}

// Append implements [Performative].
func (p *SASLResponse) Append(b []byte) []byte {
	l := listOf(b, DescSASLResponse)
	l.set(AppendBinary(l.b, p.Response))
	return l.done()
}

// Append implements [Performative].
func (p *SASLOutcome) Append(b []byte) []byte {
	l := listOf(b, DescSASLOutcome)
	l.set(AppendUbyte(l.b, uint8(p.Code)))
	l.binary(p.AdditionalData)
	return l.done()
}
