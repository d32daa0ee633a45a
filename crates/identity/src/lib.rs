//! SPIFFE ids, certificate authorities and certificates, token signing and checking; clock and randomness are arguments.
