"""Modules that are awkward for anything but eager autograd, as factories for experiments.

Each is named `tests.fuzz.models:NAME` in an experiment. All are small, and free of kinks that a rounding error would
tip over often.
"""

from tests.fuzz.models.hooked import (
    backward_hook as backward_hook,
)
from tests.fuzz.models.hooked import (
    backward_pre_hook as backward_pre_hook,
)
from tests.fuzz.models.hooked import (
    constants as constants,
)
from tests.fuzz.models.hooked import (
    frozen_bias as frozen_bias,
)
from tests.fuzz.models.hooked import (
    frozen_layer as frozen_layer,
)
from tests.fuzz.models.hooked import (
    inner_hook as inner_hook,
)
from tests.fuzz.models.hooked import (
    layer_hook as layer_hook,
)
from tests.fuzz.models.hooked import (
    parameter_hook as parameter_hook,
)
from tests.fuzz.models.hooked import (
    patched_closure as patched_closure,
)
from tests.fuzz.models.hooked import (
    patched_method as patched_method,
)
from tests.fuzz.models.hooked import (
    root_backward_pre_hook as root_backward_pre_hook,
)
from tests.fuzz.models.hooked import (
    root_hook as root_hook,
)
from tests.fuzz.models.hooked import (
    root_pre_hook as root_pre_hook,
)
from tests.fuzz.models.hooked import (
    subclassed as subclassed,
)
from tests.fuzz.models.hooked import (
    weight_norm as weight_norm,
)
from tests.fuzz.models.layered import (
    attention as attention,
)
from tests.fuzz.models.layered import (
    broadcast_pool as broadcast_pool,
)
from tests.fuzz.models.layered import (
    convolutional as convolutional,
)
from tests.fuzz.models.layered import (
    dense as dense,
)
from tests.fuzz.models.layered import (
    embedding as embedding,
)
from tests.fuzz.models.layered import (
    gated_pool as gated_pool,
)
from tests.fuzz.models.layered import (
    odd_convolution as odd_convolution,
)
from tests.fuzz.models.layered import (
    preactivation_block as preactivation_block,
)
from tests.fuzz.models.layered import (
    recurrent as recurrent,
)
from tests.fuzz.models.layered import (
    tied as tied,
)
from tests.fuzz.models.passes import (
    alias as alias,
)
from tests.fuzz.models.passes import (
    batch_centred as batch_centred,
)
from tests.fuzz.models.passes import (
    broadcast_sum as broadcast_sum,
)
from tests.fuzz.models.passes import (
    concatenated as concatenated,
)
from tests.fuzz.models.passes import (
    control_flow as control_flow,
)
from tests.fuzz.models.passes import (
    detached as detached,
)
from tests.fuzz.models.passes import (
    functional as functional,
)
from tests.fuzz.models.passes import (
    inplace_chain as inplace_chain,
)
from tests.fuzz.models.passes import (
    inplace_relu as inplace_relu,
)
from tests.fuzz.models.passes import (
    no_grad_body as no_grad_body,
)
from tests.fuzz.models.passes import (
    own_function as own_function,
)
from tests.fuzz.models.passes import (
    scalar_sum as scalar_sum,
)
from tests.fuzz.models.passes import (
    standardised as standardised,
)
from tests.fuzz.models.passes import (
    straight_through as straight_through,
)
from tests.fuzz.models.passes import (
    tensor_hook as tensor_hook,
)
from tests.fuzz.models.passes import (
    train_branch as train_branch,
)
from tests.fuzz.models.passes import (
    twice as twice,
)
from tests.fuzz.models.passes import (
    unused as unused,
)
from tests.fuzz.models.unfaithful import (
    attention_dropout as attention_dropout,
)
from tests.fuzz.models.unfaithful import (
    batch_norm as batch_norm,
)
from tests.fuzz.models.unfaithful import (
    counter as counter,
)
from tests.fuzz.models.unfaithful import (
    dropout_layer as dropout_layer,
)
from tests.fuzz.models.unfaithful import (
    functional_dropout as functional_dropout,
)
from tests.fuzz.models.unfaithful import (
    noise as noise,
)
from tests.fuzz.models.unfaithful import (
    numpy_noise as numpy_noise,
)
from tests.fuzz.models.unfaithful import (
    shuffled as shuffled,
)
from tests.fuzz.models.unfaithful import (
    writer as writer,
)
